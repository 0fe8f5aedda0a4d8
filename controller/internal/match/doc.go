// Package match decides, as a pure function, whether an event opens an incident.
package match
