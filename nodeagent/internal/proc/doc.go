// Package proc tells which process a number stands for, and joins the node's view of the cgroup trees.
package proc
