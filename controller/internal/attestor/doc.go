// Package attestor signs, logs, time-stamps and seals one statement for every event and every finished response.
package attestor
