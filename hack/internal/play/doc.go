// Package play plays the recipe on a cluster that is up, shows every step live, and checks every claim it makes.
package play
