// Package integration tests the installed system from outside, on a real cluster, and imports only what outsiders may.
package integration
