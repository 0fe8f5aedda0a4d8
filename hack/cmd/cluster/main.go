// Command cluster makes the local cluster that the tests and the demo run on.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/hack/internal/install"
	"ugallu.io/forensics/hack/internal/kindcluster"
	"ugallu.io/forensics/hack/internal/kubernetes"
	"ugallu.io/forensics/hack/internal/servers"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/tool"
)

const usage = `usage: cluster VERB
  up          make the cluster, or find it as it should be
  down        remove the cluster and its registry
  env         print the path of env.json, which says where everything is
  images      build the project's own images, push them to the registry and print their tags
  install     put the servers and the project's own programs into the cluster
  testenv     build what unit tests run against and print where it is, as lines for a shell
  kubeconfig  print the path of the kubeconfig
`

func main() {
	// What the API client would log, its errors say as well.
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	verbs := map[string]func(context.Context) error{
		"up": up, "down": kindcluster.Down, "env": env, "testenv": testenv, "kubeconfig": kubeconfig, "images": images, "install": install.Install,
	}
	if len(args) != 1 || verbs[args[0]] == nil {
		return fmt.Errorf("which verb?\n%s", usage)
	}
	return verbs[args[0]](ctx)
}

func up(ctx context.Context) error {
	_, err := kindcluster.Up(ctx)
	return err
}

func env(context.Context) error {
	if _, err := state.ReadEnv(); err != nil {
		return err
	}
	path, err := state.Path("env.json")
	if err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}

func kubeconfig(context.Context) error {
	env, err := state.ReadEnv()
	if err != nil {
		return err
	}
	fmt.Println(env.Kubeconfig)
	return nil
}

// testenv needs neither cluster nor engine.
func testenv(ctx context.Context) error {
	if err := tool.Ensure(ctx); err != nil {
		return err
	}
	envtest, err := kubernetes.Envtest(ctx)
	if err != nil {
		return err
	}
	containerd, err := kubernetes.Containerd().Build(ctx)
	if err != nil {
		return err
	}
	binaries, err := servers.TestBinaries(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("export KUBEBUILDER_ASSETS='%s'\n", envtest)
	fmt.Printf("export FORENSICS_CONTAINERD='%s'\n", filepath.Join(containerd, "containerd"))
	for _, name := range slices.Sorted(maps.Keys(binaries)) {
		fmt.Printf("export FORENSICS_%s='%s'\n", strings.ToUpper(name), binaries[name])
	}
	return nil
}

func images(ctx context.Context) error {
	env, err := state.ReadEnv()
	if err != nil {
		return err
	}
	tags, err := install.Images(ctx, env)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		fmt.Println(name + ":" + tags[name])
	}
	return nil
}
