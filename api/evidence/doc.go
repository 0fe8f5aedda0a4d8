// Package evidence defines what an investigation leaves behind in the write-once store, for any verifier to read.
package evidence
