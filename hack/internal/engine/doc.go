// Package engine makes a Docker engine answer, starting one of our own only where Debian has none running.
package engine
