// Package apitest runs an API server on loopback for tests.
package apitest
