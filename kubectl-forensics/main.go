// Command kubectl-forensics is the analyst's plugin of kubectl: it shows how far an incident is, and verifies and fetches
// what it left behind.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/kubectl-forensics/internal/options"
	"ugallu.io/forensics/kubectl-forensics/internal/status"
)

// Exit codes, documented in docs/verify.md.
const (
	exitVerified = iota
	exitRefused
	exitUsage
	exitUnread
	exitUnsealed
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	o, err := options.Parse(args, errOut)
	if errors.Is(err, options.ErrHelp) {
		return exitVerified
	}
	if err != nil {
		return complain(errOut, err, exitUsage)
	}
	switch o.Command {
	case options.Verify:
		return runVerify(ctx, o, out, errOut)
	case options.Fetch:
		return runFetch(ctx, o, out, errOut)
	default:
		return runStatus(ctx, o, out, errOut)
	}
}

// complain is the one place where an error is written. That this fails has nobody left to be told to.
func complain(errOut io.Writer, err error, code int) int {
	_, _ = fmt.Fprintln(errOut, "kubectl forensics:", err)
	return code
}

func runStatus(ctx context.Context, o options.Options, out, errOut io.Writer) int {
	reader, err := apiServer(o)
	if err != nil {
		return complain(errOut, err, exitUnread)
	}
	views, err := status.Find(ctx, reader, o.Target, o.Namespace)
	if err != nil {
		return complain(errOut, err, exitUnread)
	}
	if len(views) == 0 {
		return complain(errOut, fmt.Errorf("no incident is called %s, or is about a pod of that name", o.Target), exitUnread)
	}
	if o.Format == options.FormatJSON {
		err = writeJSON(out, views)
	} else {
		err = status.Write(out, views, time.Now())
	}
	if err != nil {
		return complain(errOut, err, exitUnread)
	}
	return exitVerified
}

func apiServer(o options.Options) (client.Reader, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = o.Kubeconfig
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: o.Context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register types: %w", err)
	}
	reader, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return reader, nil
}

func writeJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
