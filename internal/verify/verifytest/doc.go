// Package verifytest makes the evidence of whole incidents, sealed by authorities in this process, for tests to tamper with.
package verifytest
