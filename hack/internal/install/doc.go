// Package install puts the project's own programs and their servers into the development cluster.
package install
