package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/hack/internal/asset"
	"ugallu.io/forensics/hack/internal/install"
	"ugallu.io/forensics/hack/internal/kindcluster"
	"ugallu.io/forensics/hack/internal/play"
	"ugallu.io/forensics/hack/internal/state"
)

// farewell says how to go on; the cluster stays.
const farewell = `
The cluster stays up. Look around:
  export KUBECONFIG=%s
  %s get incidents,securityevents,eventresponses,attestationbundles
  %s -n forensics-sandbox get pods
Run the tests on it:  make integration
Remove everything:    make clean
`

const usage = "usage: demo, without arguments: make the cluster, install, and play the recipe through"

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	// What the API client would log, its errors say as well.
	log.SetLogger(logr.Discard())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	start := time.Now()
	env, probe, err := prepare(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("cluster, servers and programs stand after %.1f s\n", time.Since(start).Seconds())
	cluster, err := play.Open(env, probe)
	if err != nil {
		return err
	}
	if err := play.Run(ctx, cluster, os.Stdout); err != nil {
		return err
	}
	fmt.Printf("with the cluster and the install: %.1f s\n", time.Since(start).Seconds())
	fmt.Printf(farewell, env.Kubeconfig, env.Kubectl, env.Kubectl)
	return nil
}

// prepare makes what the play needs; on a warm cluster it finds everything there.
func prepare(ctx context.Context) (env state.Env, probe string, err error) {
	fmt.Println("▶ The cluster")
	if env, err = kindcluster.Up(ctx); err != nil {
		return env, "", fmt.Errorf("bring the cluster up: %w", err)
	}
	fmt.Println("▶ The servers and the programs")
	if err := install.Install(ctx); err != nil {
		return env, "", fmt.Errorf("install: %w", err)
	}
	if probe, err = asset.Command(ctx, "./integration/probe"); err != nil {
		return env, "", fmt.Errorf("build the probe: %w", err)
	}
	return env, probe, nil
}
