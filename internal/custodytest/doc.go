// Package custodytest runs a transit engine, a transparency log and a time-stamping authority on loopback for tests.
package custodytest
