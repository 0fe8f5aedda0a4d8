// Package proc reads what the kernel tells of processes in its own notation, opens the namespaces mounted on the node, and runs work in other namespaces.
package proc
