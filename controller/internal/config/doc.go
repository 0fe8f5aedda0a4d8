// Package config reports on the ForensicsConfig: whether it can be used, which policy backend applies, and how many incidents are open.
package config
