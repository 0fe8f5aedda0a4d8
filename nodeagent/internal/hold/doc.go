// Package hold keeps the files of a container from being deleted and shows them read-only, through containerd.
package hold
