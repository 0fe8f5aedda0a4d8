// Package freeze stops every process of a container, wherever it went, and sets it going again.
package freeze
