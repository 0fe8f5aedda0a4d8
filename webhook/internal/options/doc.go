// Package options turns the webhook's command line into a validated value.
package options
