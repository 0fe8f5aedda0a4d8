// Package capture stores a pod's dropped flows and held root filesystems in the write-once store.
package capture
