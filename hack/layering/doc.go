// Package layering holds the test that keeps the import graph as ARCHITECTURE.md draws it.
package layering
