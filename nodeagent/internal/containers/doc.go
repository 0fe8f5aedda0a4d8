// Package containers finds a pod's containers, their processes and their cgroups on this node.
package containers
