// Package upload cuts a stream into locked objects of the write-once store while it flows.
package upload
