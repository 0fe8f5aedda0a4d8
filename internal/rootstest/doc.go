// Package rootstest has a test find out which certificate authorities its own program knows by itself.
package rootstest
