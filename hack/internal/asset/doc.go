// Package asset builds programs from the Go module proxy into a folder named by the hash of all that went in.
package asset
