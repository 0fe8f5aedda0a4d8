// Package options parses the controller's flags and the pod's own identity into one validated value.
package options
