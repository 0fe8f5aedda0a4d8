// Package clusterstate stores what the API server knew of a pod when its incident opened.
package clusterstate
