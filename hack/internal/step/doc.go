// Package step runs the steps of a set-up one after the other and prints what each took.
package step
