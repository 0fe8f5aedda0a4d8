// Package proc reads what the kernel tells of processes in its own notation, and runs work in other namespaces.
package proc
