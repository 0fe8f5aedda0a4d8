// Package status reads how far an incident is from the API server, and writes it for people.
package status
