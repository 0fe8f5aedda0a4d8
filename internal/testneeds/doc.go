// Package testneeds gives a test what it needs of its machine, or skips it where that is missing.
package testneeds
