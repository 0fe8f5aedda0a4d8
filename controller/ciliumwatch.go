package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/policy"
)

// ciliumCheck is how soon Cilium is noticed when it is installed into a running cluster.
const ciliumCheck = 30 * time.Second

// ciliumWatch makes the incident controller watch Cilium's policies from the moment on that the cluster has the kind: a
// watch on a kind that does not exist would keep the controller from starting.
type ciliumWatch struct {
	cache       cache.Cache
	controller  controller.Controller
	detector    *policy.Detector
	toIncidents handler.MapFunc
}

// Start blocks until the watch is set up or ctx ends.
func (w *ciliumWatch) Start(ctx context.Context) error {
	ticker := time.NewTicker(ciliumCheck)
	defer ticker.Stop()
	for {
		backend, err := w.detector.Backend(ctx)
		switch {
		case err != nil:
			log.FromContext(ctx).Error(err, "look for Cilium")
		case backend == v1alpha1.BackendCilium:
			return w.watch()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *ciliumWatch) watch() error {
	kind := &metav1.PartialObjectMetadata{}
	kind.SetGroupVersionKind(policy.Kind(v1alpha1.BackendCilium))
	var object client.Object = kind
	if err := w.controller.Watch(source.Kind(w.cache, object, handler.EnqueueRequestsFromMapFunc(w.toIncidents))); err != nil {
		return fmt.Errorf("watch Cilium's policies: %w", err)
	}
	return nil
}
