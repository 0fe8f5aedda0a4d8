// Command webhook admits or refuses what the API server asks about frozen pods and about security events.
package main
