// Package capability finds the Linux capabilities that this machine withholds and drops them from container specifications.
package capability
