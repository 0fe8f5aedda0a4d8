// Package capture stores the parts of a pod in the write-once store, the most volatile first.
package capture
