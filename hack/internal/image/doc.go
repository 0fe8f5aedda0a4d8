// Package image assembles container images from files and moves them to where the cluster finds them.
package image
