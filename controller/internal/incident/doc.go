// Package incident takes each incident through its ordered steps, from containment to release.
package incident
