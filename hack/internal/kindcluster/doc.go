// Package kindcluster brings the two-node cluster of node containers up, back up and down.
package kindcluster
