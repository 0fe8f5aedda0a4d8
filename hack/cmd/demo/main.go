package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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

// farewell says how to go on; the cluster stays. Its arguments are the kubeconfig, the folder of kubectl, and where the
// evidence lies.
const farewell = `
The cluster stays up. Look around:
  export KUBECONFIG='%[1]s' PATH='%[2]s':"$PATH"
  kubectl get incidents,securityevents,eventresponses,attestationbundles
  kubectl -n forensics-sandbox get pods
Verify the evidence in the same shell, as a stranger would, who has the trusted root and the public key from you:
  trust="$(mktemp -d)"
  kubectl -n ugallu-system get configmap ugallu-trusted-root -o jsonpath='{.data.trusted_root\.json}' > "$trust/trusted_root.json"
  kubectl -n ugallu-system get configmap ugallu-trusted-root -o jsonpath='{.data.ugallu-attestor-v1\.pub}' > "$trust/attestor.pub"
  kubectl -n ugallu-demo port-forward svc/minio 19000:9000 > /dev/null & sleep 3
  AWS_ACCESS_KEY_ID="$(kubectl -n ugallu-demo get secret ugallu-analyst -o jsonpath='{.data.access-key}' | base64 -d)" \
  AWS_SECRET_ACCESS_KEY="$(kubectl -n ugallu-demo get secret ugallu-analyst -o jsonpath='{.data.secret-key}' | base64 -d)" \
  go run ./kubectl-forensics verify %[3]s \
    --endpoint http://127.0.0.1:19000 --trusted-root "$trust/trusted_root.json" --key "$trust/attestor.pub"
  kill $!
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
	stored, err := play.Run(ctx, cluster, os.Stdout)
	if err != nil {
		return err
	}
	fmt.Printf("with the cluster and the install: %.1f s\n", time.Since(start).Seconds())
	fmt.Printf(farewell, env.Kubeconfig, filepath.Dir(env.Kubectl), stored)
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
