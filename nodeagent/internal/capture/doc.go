// Package capture reads every held root filesystem of a pod into the write-once store.
package capture
