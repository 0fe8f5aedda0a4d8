// Package storetest runs stores with Object Lock on loopback for tests, and a proxy that makes them misbehave.
package storetest
