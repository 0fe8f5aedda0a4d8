// Package policy keeps a deny-all network policy on frozen pods, with the kind of policy that the cluster's CNI enforces best.
package policy
