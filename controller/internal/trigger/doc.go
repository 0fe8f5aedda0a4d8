// Package trigger gives every security event one verdict and opens an incident for each that matches.
package trigger
