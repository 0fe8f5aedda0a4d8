// Command servers builds the servers of the tests and sets them up in the development cluster.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"ugallu.io/forensics/hack/internal/servers"
	"ugallu.io/forensics/hack/internal/state"
)

const usage = `usage: servers [VERB]
  binaries     build the servers and print a shell line for each, export FORENSICS_<NAME>=<path>; the default
  install      run the servers in the cluster that is up, and set them up
  handout DIR  write what an analyst verifies and reads the evidence with into a folder
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 0 || (len(args) == 1 && args[0] == "binaries"):
		return binaries(ctx)
	case len(args) == 1 && args[0] == "install":
		env, err := state.ReadEnv()
		if err != nil {
			return err
		}
		return servers.Install(ctx, env)
	case len(args) == 2 && args[0] == "handout":
		env, err := state.ReadEnv()
		if err != nil {
			return err
		}
		return servers.Handout(ctx, env, args[1])
	default:
		return fmt.Errorf("which verb?\n%s", usage)
	}
}

func binaries(ctx context.Context) error {
	paths, err := servers.Binaries(ctx)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		fmt.Printf("export FORENSICS_%s='%s'\n", strings.ToUpper(name), paths[name])
	}
	return nil
}
