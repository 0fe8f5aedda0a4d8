package main

import (
	"context"
	"fmt"

	"k8s.io/client-go/discovery"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/config"
	"ugallu.io/forensics/controller/internal/incident"
	"ugallu.io/forensics/controller/internal/incident/clusterstate"
	"ugallu.io/forensics/controller/internal/incident/upload"
	"ugallu.io/forensics/controller/internal/options"
	"ugallu.io/forensics/controller/internal/policy"
	"ugallu.io/forensics/controller/internal/trigger"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

// recorder names the controller in Kubernetes events.
const recorder = "ugallu-forensics"

func setupTrigger(mgr ctrl.Manager, o options.Options) error {
	checker := newChecker(mgr, o)
	if err := trigger.RegisterMetrics(); err != nil {
		return fmt.Errorf("register metrics of trigger: %w", err)
	}
	r := &trigger.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Checker: checker,
		Recorder: mgr.GetEventRecorder(recorder), Clock: clock.RealClock{},
	}
	return r.SetupWithManager(mgr)
}

// setupIncidents sets up incident, config, or both: they share the detection of the policy backend.
func setupIncidents(mgr ctrl.Manager, o options.Options) error {
	found, err := discovery.NewDiscoveryClientForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("create discovery client: %w", err)
	}
	detector := policy.NewDetector(found)
	if o.Runs(options.Config) {
		r := &config.Reconciler{
			Client: mgr.GetClient(), Detector: detector, Recorder: mgr.GetEventRecorder(recorder), Clock: clock.RealClock{},
		}
		if err := r.SetupWithManager(mgr); err != nil {
			return err
		}
	}
	if !o.Runs(options.Incident) {
		return nil
	}
	for _, setup := range []func(ctrl.Manager, options.Options) error{setupUpload, setupClusterState} {
		if err := setup(mgr, o); err != nil {
			return err
		}
	}
	if err := incident.RegisterMetrics(); err != nil {
		return fmt.Errorf("register metrics of incident: %w", err)
	}
	r := incident.New(incident.Dependencies{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder(recorder), Clock: clock.RealClock{},
		Policies: policy.New(mgr.GetClient(), mgr.GetAPIReader(), detector, clock.RealClock{}),
	})
	built, err := r.SetupWithManager(mgr)
	if err != nil {
		return err
	}
	return mgr.Add(&ciliumWatch{cache: mgr.GetCache(), controller: built, detector: detector, toIncidents: r.OfPod})
}

func setupUpload(mgr ctrl.Manager, o options.Options) error {
	r := &upload.Reconciler{
		Client:   mgr.GetClient(),
		Open:     openDestination(mgr, o),
		Reporter: newReporter(o.Pod),
		ReadBack: options.Pod{Namespace: v1alpha1.NamespacePrivileged, ServiceAccount: "ugallu-forensics-snapshot"}.Account(),
		Clock:    clock.RealClock{},
	}
	return r.SetupWithManager(mgr)
}

func setupClusterState(mgr ctrl.Manager, o options.Options) error {
	r := &clusterstate.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Open: openDestination(mgr, o), Clock: clock.RealClock{},
	}
	return r.SetupWithManager(mgr)
}

// openDestination opens what an incident names, with the store's own encryption where it asks for that.
func openDestination(mgr ctrl.Manager, o options.Options) func(context.Context, v1alpha1.Destination) (worm.Store, error) {
	stores := destination.NewOpener(mgr.GetAPIReader(), o.WORMCredentialsDir)
	return func(ctx context.Context, to v1alpha1.Destination) (worm.Store, error) {
		return stores.Open(ctx, to.Bucket, destination.WithKey(to))
	}
}
