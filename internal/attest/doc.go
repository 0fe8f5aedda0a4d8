// Package attest turns in-toto statements into Sigstore bundles, in stages that can be persisted, and verifies them offline.
package attest
