// Package destination opens the write-once store that the cluster's WORMConfig names.
package destination
