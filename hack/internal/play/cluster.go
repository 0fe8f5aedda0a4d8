package play

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/hack/internal/state"
	"ugallu.io/forensics/hack/internal/step"
)

// Cluster is the installed system, as its administrator sees it.
type Cluster struct {
	client.Client
	env   state.Env
	probe string
}

// Open connects to the cluster; probe is the program that sends and counts in the pods of the play.
func Open(env state.Env, probe string) (*Cluster, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register types: %w", err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", env.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", env.Kubeconfig, err)
	}
	config.QPS, config.Burst = 100, 200
	opened, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return &Cluster{Client: opened, env: env, probe: probe}, nil
}

// kubectl runs kubectl as the administrator and returns what it printed.
func (c *Cluster) kubectl(ctx context.Context, args ...string) (string, error) {
	return c.kubectlWith(ctx, c.env.Kubeconfig, nil, args...)
}

func (c *Cluster) kubectlWith(ctx context.Context, kubeconfig string, stdin io.Reader, args ...string) (string, error) {
	return step.Command{
		Args: append([]string{c.env.Kubectl}, args...), Env: []string{"KUBECONFIG=" + kubeconfig},
		Stdin: stdin, Timeout: 90 * time.Second,
	}.Run(ctx)
}

func (c *Cluster) apply(ctx context.Context, yaml string) error {
	_, err := c.kubectlWith(ctx, c.env.Kubeconfig, strings.NewReader(yaml), "apply", "-f", "-")
	return err
}

// account writes a kubeconfig that holds a fresh token of a service account and no other credential: a client
// certificate would win over a token. The file goes with folder.
func (c *Cluster) account(ctx context.Context, folder, namespace, name string) (string, error) {
	token, err := c.kubectl(ctx, "-n", namespace, "create", "token", name)
	if err != nil {
		return "", err
	}
	config, err := clientcmd.LoadFromFile(c.env.Kubeconfig)
	if err != nil {
		return "", fmt.Errorf("load %s: %w", c.env.Kubeconfig, err)
	}
	current := config.Contexts[config.CurrentContext]
	if current == nil {
		return "", fmt.Errorf("%s has no current context", c.env.Kubeconfig)
	}
	config.AuthInfos = map[string]*clientcmdapi.AuthInfo{current.AuthInfo: {Token: strings.TrimSpace(token)}}
	path := filepath.Join(folder, "kubeconfig-"+namespace+"-"+name)
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	return path, nil
}

// installProbe puts the probe into a pod of the sandbox through the pod's shell.
func (c *Cluster) installProbe(ctx context.Context, pod string) (err error) {
	binary, err := os.Open(c.probe)
	if err != nil {
		return fmt.Errorf("open the probe: %w", err)
	}
	defer func() { err = errors.Join(err, binary.Close()) }()
	_, err = c.kubectlWith(ctx, c.env.Kubeconfig, binary, "-n", sandbox, "exec", "-i", pod, "--",
		"sh", "-c", "cat > /tmp/probe && chmod 755 /tmp/probe")
	return err
}

// background starts a command in a pod of the sandbox that outlives the session.
func (c *Cluster) background(ctx context.Context, pod, command string) error {
	_, err := c.kubectl(ctx, "-n", sandbox, "exec", pod, "--", "sh", "-c", command+" </dev/null >/dev/null 2>&1 &")
	return err
}
