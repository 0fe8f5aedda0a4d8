// Package corpus generates the root filesystem of a container whose owner knows that it will be captured.
package corpus
