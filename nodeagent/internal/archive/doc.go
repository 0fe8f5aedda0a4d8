// Package archive streams a root filesystem, as it lies on disk, into a compressed tar archive.
package archive
