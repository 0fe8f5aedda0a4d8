package main

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/config"
	"ugallu.io/forensics/controller/internal/policy"
)

const (
	// ciliumCheck is how soon Cilium is noticed when its definition is not seen to come.
	ciliumCheck = 30 * time.Second
	// ciliumLag is how often Cilium is looked for once its definition came: discovery lags by about a second.
	ciliumLag = time.Second
	// ciliumLooks is how often in a row.
	ciliumLooks = 10
)

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
	changed, err := w.changes(ctx)
	if err != nil {
		return err
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for looks := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			looks = ciliumLooks
		case <-timer.C:
		}
		backend, err := w.detector.Backend(ctx)
		switch {
		case err != nil:
			log.FromContext(ctx).Error(err, "look for Cilium")
		case backend == v1alpha1.BackendCilium:
			return w.watch()
		}
		next := ciliumCheck
		if looks > 0 {
			looks, next = looks-1, ciliumLag
		}
		timer.Reset(next)
	}
}

// changes tells that the definition of Cilium's policies came, or changed.
func (w *ciliumWatch) changes(ctx context.Context) (<-chan struct{}, error) {
	informer, err := w.cache.GetInformer(ctx, config.Definition())
	if err != nil {
		return nil, fmt.Errorf("watch the definition of Cilium's policies: %w", err)
	}
	changed := make(chan struct{}, 1)
	note := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { note() }, UpdateFunc: func(any, any) { note() },
	})
	if err != nil {
		return nil, fmt.Errorf("watch the definition of Cilium's policies: %w", err)
	}
	return changed, nil
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
