package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/stamp"
	"ugallu.io/forensics/webhook/internal/acknowledge"
	"ugallu.io/forensics/webhook/internal/certificate"
	"ugallu.io/forensics/webhook/internal/frozen"
	"ugallu.io/forensics/webhook/internal/options"
)

// +kubebuilder:rbac:groups="",resources=secrets,namespace=ugallu-system,verbs=create
// +kubebuilder:rbac:groups="",resources=secrets,resourceNames=ugallu-acknowledgement-key,namespace=ugallu-system,verbs=get

func main() {
	if err := start(ctrl.SetupSignalHandler(), os.Args[1:]); err != nil {
		slog.Error("webhook ends", "error", err)
		os.Exit(1)
	}
}

func start(ctx context.Context, args []string) error {
	o, err := options.Parse(args)
	if err != nil {
		return err
	}
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, nil)))
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the API server: %w", err)
	}
	return run(ctx, config, o)
}

func run(ctx context.Context, config *rest.Config, o options.Options) error {
	mgr, err := newManager(config, o)
	if err != nil {
		return err
	}
	direct, err := client.New(config, client.Options{Scheme: mgr.GetScheme()})
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	key := func(ctx context.Context) ([]byte, error) { return stamp.Key(ctx, direct, true) }
	if _, err := key(ctx); err != nil {
		return err
	}
	server := webhook.NewServer(webhook.Options{Port: o.Port, CertDir: o.CertificateDir})
	register(server, direct, key, o.ControllerAccount)
	if err := serve(mgr, server, o.CertificateDir); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func newManager(config *rest.Config, o options.Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register Kubernetes' objects: %w", err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register our objects: %w", err)
	}
	onlyCertificate := cache.ByObject{Namespaces: map[string]cache.Config{
		v1alpha1.NamespaceSystem: {FieldSelector: fields.OneTermEqualSelector("metadata.name", certificate.SecretName)},
	}}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: o.MetricsAddress},
		HealthProbeBindAddress: o.ProbeAddress,
		Cache:                  cache.Options{ByObject: map[client.Object]cache.ByObject{&corev1.Secret{}: onlyCertificate}},
	})
	if err != nil {
		return nil, fmt.Errorf("make manager: %w", err)
	}
	return mgr, nil
}

// register puts each rule at the path that the webhook configurations call.
func register(server webhook.Server, reader client.Reader, key acknowledge.Key, controller string) {
	server.Register("/frozen-pods", &webhook.Admission{Handler: frozen.New(reader, controller)})
	server.Register("/stamp-acknowledgement", &webhook.Admission{Handler: acknowledge.NewStamper(reader, key, clock.RealClock{})})
	server.Register("/check-security-event", &webhook.Admission{Handler: acknowledge.NewChecker(key, controller)})
}

// serve starts the server once there is a certificate that the API server trusts, and is ready from then on.
func serve(mgr ctrl.Manager, server webhook.Server, folder string) error {
	trusted, err := certificate.Add(mgr, folder)
	if err != nil {
		return err
	}
	err = mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		select {
		case <-trusted:
			return server.Start(ctx)
		case <-ctx.Done():
			return nil
		}
	}))
	if err != nil {
		return fmt.Errorf("add server: %w", err)
	}
	if err := mgr.AddReadyzCheck("serving", server.StartedChecker()); err != nil {
		return fmt.Errorf("add readiness: %w", err)
	}
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return fmt.Errorf("add liveness: %w", err)
	}
	return nil
}
