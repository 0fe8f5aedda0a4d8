// Command servers builds the servers that tests and the development cluster use and prints name=path, one a line.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"ugallu.io/forensics/hack/internal/servers"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	paths, err := servers.Binaries(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		fmt.Printf("%s=%s\n", name, paths[name])
	}
}
