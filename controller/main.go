package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	_ "golang.org/x/crypto/x509roots/fallback" // an image from scratch has no certificates of its own
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/options"
)

func main() {
	o, err := options.Parse(os.Args[1:], os.Getenv, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctrl.SetupSignalHandler(), o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1)
	}
}

// run blocks until ctx ends or a controller cannot go on.
func run(ctx context.Context, o options.Options) error {
	log.SetLogger(logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil)))
	mgr, err := newManager(o)
	if err != nil {
		return err
	}
	setups := []struct {
		controllers []string
		setup       func(ctrl.Manager, options.Options) error
	}{
		{[]string{options.Trigger}, setupTrigger},
		{[]string{options.Incident, options.Config}, setupIncidents},
		{[]string{options.Readback}, setupReadback},
		{[]string{options.Attestor}, setupAttestor},
	}
	for _, s := range setups {
		if !runsAny(o, s.controllers) {
			continue
		}
		if err := s.setup(mgr, o); err != nil {
			return err
		}
	}
	log.Log.Info("starting", "controllers", o.Controllers, "account", o.Pod.Account())
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run controllers: %w", err)
	}
	return nil
}

func runsAny(o options.Options, controllers []string) bool {
	for _, controller := range controllers {
		if o.Runs(controller) {
			return true
		}
	}
	return false
}

func newManager(o options.Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return nil, fmt.Errorf("load cluster configuration: %w", err)
	}
	// The API server's own fairness limits us; a limit here would queue containment behind bookkeeping.
	config.QPS = -1
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		Cache:                         cacheOptions(o),
		Client:                        clientOptions(),
		Metrics:                       metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress:        o.ProbeAddress,
		LeaderElection:                o.LeaderElect,
		LeaderElectionID:              o.LeaseName(),
		LeaderElectionNamespace:       o.Pod.Namespace,
		LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return nil, fmt.Errorf("create manager: %w", err)
	}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return nil, fmt.Errorf("add probes: %w", err)
	}
	return mgr, nil
}
