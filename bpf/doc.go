// Package bpf holds the eBPF programs that cut a pod off, compiled, and the Go types of their maps.
package bpf
