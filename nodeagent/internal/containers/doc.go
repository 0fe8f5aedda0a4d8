// Package containers finds the containers of pods, their processes, their cgroups and their networks on this node.
package containers
