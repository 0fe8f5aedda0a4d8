// Package verify checks offline what an incident left behind, and says of each link of its chain of custody whether it holds.
package verify
