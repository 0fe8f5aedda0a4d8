// Command transit serves Vault's transit secrets engine over HTTP to one static token, for tests and the development cluster.
package main
