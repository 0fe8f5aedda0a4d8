//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// cluster is the installed system under test and the tools to look at it from outside.
type cluster struct {
	kubectl
	client.WithWatch
	env   environment
	work  string
	probe string
	// opening guards what the first test that needs it opens or brings along: some run beside one another.
	opening sync.Mutex
	// store is the way to the bucket.
	store *store
	// held, released and stormy are the scenes that several tests look at.
	held, released, stormy shared
	// storm is what is known of stormy beside the scene.
	storm storm
	// nodes are the nodes that have the probe, and what has to be done there at the end.
	nodes    map[string]bool
	tidyings []func(ctx context.Context) error
}

// kubectl runs the command line as one user.
type kubectl struct {
	path       string
	kubeconfig string
}

func newCluster(ctx context.Context, env environment, work string) (*cluster, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register types: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", env.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", env.Kubeconfig, err)
	}
	config.QPS, config.Burst = 100, 200
	watching, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	probe, err := buildProbe(ctx, work)
	if err != nil {
		return nil, err
	}
	c := &cluster{
		kubectl: kubectl{path: env.Kubectl, kubeconfig: env.Kubeconfig}, WithWatch: watching,
		env: env, work: work, probe: probe, nodes: map[string]bool{},
	}
	if _, err := c.apply(ctx, recipeConfig); err != nil {
		return nil, err
	}
	return c, nil
}

// close lets the shared pods go, removes their namespaces and tidies the nodes.
func (c *cluster) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	for _, scene := range []*scene{c.held.scene, c.released.scene, c.stormy.scene} {
		if scene != nil {
			errs = append(errs, c.strike(ctx, scene))
		}
	}
	if c.store != nil {
		errs = append(errs, c.store.close())
	}
	for _, tidy := range slices.Backward(c.tidyings) {
		errs = append(errs, tidy(ctx))
	}
	return errors.Join(errs...)
}

// run runs kubectl and returns what it printed. The error holds what it said on stderr.
func (k kubectl) run(ctx context.Context, args ...string) (string, error) {
	return k.runWith(ctx, nil, args...)
}

func (k kubectl) runWith(ctx context.Context, stdin io.Reader, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.path, args...) // #nosec G204 -- the tests' own command lines
	cmd.Env = append(cmd.Environ(), "KUBECONFIG="+k.kubeconfig)
	cmd.Stdin = stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// must runs kubectl and ends the test when it fails.
func (k kubectl) must(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := k.run(tb.Context(), args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// refused runs kubectl, demands that it fails, and returns what it said.
func (k kubectl) refused(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := k.run(tb.Context(), args...)
	if err == nil {
		tb.Fatalf("kubectl %s was allowed: %s", strings.Join(args, " "), out)
	}
	return err.Error()
}

func (k kubectl) apply(ctx context.Context, yaml string) (string, error) {
	return k.runWith(ctx, strings.NewReader(yaml), "apply", "-f", "-")
}

// as is kubectl with a fresh token of a service account and with no other credential: a client certificate would win
// over a token given on the command line.
func (c *cluster) as(ctx context.Context, namespace, account string) (kubectl, error) {
	token, err := c.run(ctx, "-n", namespace, "create", "token", account)
	if err != nil {
		return kubectl{}, err
	}
	config, err := clientcmd.LoadFromFile(c.env.Kubeconfig)
	if err != nil {
		return kubectl{}, fmt.Errorf("load %s: %w", c.env.Kubeconfig, err)
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil {
		return kubectl{}, fmt.Errorf("%s has no current context", c.env.Kubeconfig)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{current.AuthInfo: {Token: strings.TrimSpace(token)}}
	path := filepath.Join(c.work, "kubeconfig-"+namespace+"-"+account+"-"+rand.Text())
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return kubectl{}, fmt.Errorf("write %s: %w", path, err)
	}
	return kubectl{path: c.path, kubeconfig: path}, nil
}

// mustAs is as for a test that cannot go on without.
func (c *cluster) mustAs(tb testing.TB, namespace, account string) kubectl {
	tb.Helper()
	user, err := c.as(tb.Context(), namespace, account)
	if err != nil {
		tb.Fatal(err)
	}
	return user
}

// eventually polls until done is true. When the time is over the error carries the last state that done told.
func eventually(ctx context.Context, timeout time.Duration, done func(context.Context) (ok bool, state string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	state := "not looked at yet"
	for {
		ok, now, err := done(ctx)
		if now != "" {
			state = now
		}
		switch {
		case ok && err == nil:
			return nil
		case err != nil && ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s; last seen:\n%s", timeout, state)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
