// Package readback reads every stored version that a finished response names, and records what the store returned.
package readback
