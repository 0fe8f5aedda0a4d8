// Package tool makes sure that the command-line tools that tests call are there.
package tool
