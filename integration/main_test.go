//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// notRun is printed with every run, so that nobody takes for tested what this kind of cluster cannot show.
var notRun = [][2]string{
	{"kubelet on a pure cgroup v2 host (freeze by cgroup.freeze)", "forced in nodeagent/internal/freeze's unit tests"},
	{"arm64 nodes", "cross-built only"},
	{"kernels before 6.6 (no tcx)", "clsact is forced in nodeagent/internal/drop's tests"},
	{"Cilium agent enforcing the policy", "resolved by Cilium's own library in hack/ciliumpolicy; enforcement needs a second cluster"},
	{"containerd before 2.2 (a lease is kept while the container runs)", "the version's rule and the keeper's part in unit tests"},
	{"pods with IPVLAN or SR-IOV", "no veth peer: reported as Partial, not exercised here"},
	{"SCTP", "tried where the kernel has it; TestContainmentEveryWayOut says so where not"},
	{"AF_VSOCK, to the machine that a virtual node runs on", "crosses no device and no hook: only the freeze stops it"},
	{"snapshotters other than overlayfs", "not on this node image"},
}

// suite is the one cluster that every test of this package looks at; TestMain sets it before any test runs.
var suite *cluster

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := runSuite(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (code int, err error) {
	env, err := readEnvironment(os.Getenv("FORENSICS_ENV"))
	if err != nil {
		return 1, err
	}
	work, err := os.MkdirTemp("", "forensics-integration-")
	if err != nil {
		return 1, fmt.Errorf("make a work folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if suite, err = newCluster(ctx, env, work); err != nil {
		return 1, err
	}
	printNotRun()
	code = m.Run()
	return code, suite.close()
}

func printNotRun() {
	fmt.Println("not run on this cluster:")
	for _, row := range notRun {
		fmt.Printf("  %-62s %s\n", row[0], row[1])
	}
}

// environment is the part of the cluster's description that the tests need.
type environment struct {
	Kubeconfig string `json:"kubeconfig"`
	Kubectl    string `json:"kubectl"`
	Nodes      []struct {
		Name string `json:"name"`
		IP   string `json:"ip"`
	} `json:"nodes"`
}

func readEnvironment(path string) (environment, error) {
	if path == "" {
		return environment{}, errors.New("FORENSICS_ENV names no file: run `make integration`, which brings a cluster up")
	}
	raw, err := os.ReadFile(path) // #nosec G304 G703 -- whoever runs the tests names the file
	if err != nil {
		return environment{}, fmt.Errorf("read the cluster's description: %w", err)
	}
	var env environment
	if err := json.Unmarshal(raw, &env); err != nil {
		return environment{}, fmt.Errorf("parse %s: %w", path, err)
	}
	return env, nil
}

// buildProbe compiles the program that runs inside pods and nodes: static, so that it runs in any image.
func buildProbe(ctx context.Context, work string) (string, error) {
	binary := filepath.Join(work, "probe")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./probe") // #nosec G204 -- our own
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the probe: %w: %s", err, out)
	}
	return binary, nil
}
