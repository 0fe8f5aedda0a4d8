// Package ciliumpolicy proves with Cilium's own policy library what the deny-all policy of controller/internal/policy denies.
//
// It is a module of its own: Cilium stays out of the product's dependencies.
package ciliumpolicy
