// Command nodeagent contains, freezes, holds and captures pods of the node that it runs on, as the API server orders.
package main
