// Package order carries out the orders that the API server holds for this node, and records what was done.
package order
