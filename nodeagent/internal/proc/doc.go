// Package proc tells which process a number stands for, and runs work in other namespaces.
package proc
