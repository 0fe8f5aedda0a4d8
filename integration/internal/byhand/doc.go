// Package byhand runs the commands of docs/verify-by-hand.md as they are printed.
package byhand
