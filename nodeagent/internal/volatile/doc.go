// Package volatile reads what is lost with a pod's processes: their state, their sockets, their files without a name and
// their memory.
package volatile
