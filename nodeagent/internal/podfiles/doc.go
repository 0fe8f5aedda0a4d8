// Package podfiles finds and keeps what belongs to a pod on its node beside root filesystems and processes.
package podfiles
