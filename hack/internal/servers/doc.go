// Package servers builds the store, log, clock and key servers of the development cluster and sets them up in it.
package servers
