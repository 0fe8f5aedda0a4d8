// Package artifact writes an artifact as evidence, with the executor's account of it beside the read-back's.
package artifact
