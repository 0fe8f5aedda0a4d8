// Package servers builds the store, log, clock, key and certificate servers of the development cluster and sets them up in it.
package servers
