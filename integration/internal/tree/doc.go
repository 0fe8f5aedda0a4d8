// Package tree describes a file tree so that a live folder and an archive of it can be compared entry by entry.
package tree
