// Package certificate keeps the serving certificate issued, renewed, on disk and trusted by the API server.
package certificate
