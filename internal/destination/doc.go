// Package destination stores in, and opens, the write-once store that the WORMConfig and an incident name.
package destination
