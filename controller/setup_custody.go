package main

import (
	"context"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/attestor"
	"ugallu.io/forensics/controller/internal/options"
	"ugallu.io/forensics/controller/internal/readback"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

func setupReadback(mgr ctrl.Manager, o options.Options) error {
	stores := destination.NewOpener(mgr.GetAPIReader(), o.WORMCredentialsDir)
	r := &readback.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{},
		Store: func(ctx context.Context, bucket string) (worm.Reader, error) { return stores.Open(ctx, bucket) },
	}
	return r.SetupWithManager(mgr)
}

func setupAttestor(mgr ctrl.Manager, o options.Options) error {
	configuration := newConfiguration(mgr, o)
	stores := destination.NewOpener(mgr.GetClient(), o.WORMCredentialsDir)
	announcer := &attestor.Announcer{Client: mgr.GetClient()}
	if err := announcer.SetupWithManager(mgr); err != nil {
		return err
	}
	readiness := &attestor.Readiness{Client: mgr.GetClient(), Clock: clock.RealClock{}, Configuration: configuration}
	if err := readiness.SetupWithManager(mgr); err != nil {
		return err
	}
	r := &attestor.Reconciler{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{}, Account: o.Pod.Account(),
		Modes: configuration.Modes,
		Notary: func(ctx context.Context, mode v1alpha1.SigningMode) (attestor.Notary, error) {
			return configuration.Notary(ctx, mode)
		},
		Store: func(ctx context.Context, bucket string) (worm.Store, error) { return stores.Open(ctx, bucket) },
		Trust: configuration.TrustMaterial,
	}
	return r.SetupWithManager(mgr)
}

// newChecker proves attestations for a workload that holds no signing identity.
func newChecker(mgr ctrl.Manager, o options.Options) *attestor.Checker {
	configuration := newConfiguration(mgr, o)
	stores := destination.NewOpener(mgr.GetClient(), o.WORMCredentialsDir)
	return &attestor.Checker{
		Reader: mgr.GetClient(), Clock: clock.RealClock{},
		Verifier: func(ctx context.Context) (attestor.Verifier, error) { return configuration.Trust(ctx) },
		Store:    func(ctx context.Context, bucket string) (worm.Store, error) { return stores.Open(ctx, bucket) },
	}
}

func newConfiguration(mgr ctrl.Manager, o options.Options) *attestor.Configuration {
	return &attestor.Configuration{Reader: mgr.GetClient(), Direct: mgr.GetAPIReader(), TokenFile: o.TransitTokenFile}
}
