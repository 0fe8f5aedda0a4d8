// Package freeze stops every process of a container, and sets it going again.
package freeze
