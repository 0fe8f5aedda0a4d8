// Package frozen refuses whatever would change, delete or enter a pod that an incident holds.
package frozen
