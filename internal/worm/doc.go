// Package worm stores evidence in a write-once store and reads it back.
package worm
