// Package options reads and validates the command line of kubectl-forensics.
package options
