// Package custody makes the custody records of an incident, and the statement over each, from the incident's sealed objects.
package custody
