// Package rootfs makes the Debian root filesystem of the cluster's nodes.
package rootfs
