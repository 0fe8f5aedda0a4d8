// Command probe is what the integration tests run inside pods and nodes: it sends, counts, plants and lists.
package main
