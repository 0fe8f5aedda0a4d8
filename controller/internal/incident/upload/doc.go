// Package upload executes evidence-upload orders: it stores an incident's manifest and reads it back.
package upload
