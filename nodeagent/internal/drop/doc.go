// Package drop cuts a pod off from every network with pinned eBPF programs, and counts what it drops.
package drop
