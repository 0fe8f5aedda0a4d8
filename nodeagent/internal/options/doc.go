// Package options turns the node agent's command line and environment into one validated value.
package options
