package config

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// +kubebuilder:rbac:groups=security.ugallu.io,resources=forensicsconfigs;wormconfigs;incidents,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=forensicsconfigs/status,verbs=patch
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

const (
	fieldOwner = "ugallu-forensics-config"
	// lookAgain bounds how long the status rests: what the watches miss is found then.
	lookAgain = 30 * time.Second
	// lagging is how soon discovery is asked again while it contradicts the definition of Cilium's policies.
	lagging = time.Second
)

// Detector finds the policy backend of the cluster.
type Detector interface {
	Backend(ctx context.Context) (v1alpha1.FreezeBackend, error)
}

// Reconciler writes the status of the ForensicsConfig.
type Reconciler struct {
	Client   client.Client
	Detector Detector
	Recorder events.EventRecorder
	Clock    clock.PassiveClock
}

// Reconcile looks at the configuration, the store's, the cluster and the open incidents, and patches the status once.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var config v1alpha1.ForensicsConfig
	if err := r.Client.Get(ctx, request.NamespacedName, &config); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := config.DeepCopy()
	ready, err := r.status(ctx, &config)
	if err != nil {
		return ctrl.Result{}, err
	}
	again, err := r.again(ctx, config.Status.FreezeBackend)
	if err != nil || equality.Semantic.DeepEqual(before.Status, config.Status) {
		return ctrl.Result{RequeueAfter: again}, err
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	err = r.Client.Status().Patch(ctx, &config, patch, client.FieldOwner(fieldOwner))
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: time.Second}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("write status of ForensicsConfig %s: %w", config.Name, err)
	}
	if previous := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionReady); previous == nil || previous.Reason != ready.Reason {
		n := noteReady(ready)
		r.Recorder.Eventf(&config, nil, n.kind, n.reason, n.action, "%s", n.text)
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// status fills in the wanted status and returns its Ready condition.
func (r *Reconciler) status(ctx context.Context, config *v1alpha1.ForensicsConfig) (metav1.Condition, error) {
	backend, err := r.Detector.Backend(ctx)
	if err != nil {
		return metav1.Condition{}, err
	}
	store, err := r.store(ctx)
	if err != nil {
		return metav1.Condition{}, err
	}
	var open v1alpha1.IncidentList
	if err := r.Client.List(ctx, &open, client.MatchingLabels{v1alpha1.LabelOpen: "true"}); err != nil {
		return metav1.Condition{}, fmt.Errorf("list open incidents: %w", err)
	}
	ready := Ready(config.Spec, store)
	ready.ObservedGeneration = config.Generation
	ready.LastTransitionTime = metav1.NewTime(r.Clock.Now())
	config.Status.FreezeBackend = backend
	config.Status.InFlightIncidents = inFlight(open.Items)
	config.Status.ObservedGeneration = config.Generation
	meta.SetStatusCondition(&config.Status.Conditions, ready)
	return ready, nil
}

func (r *Reconciler) store(ctx context.Context) (*v1alpha1.WORMConfig, error) {
	var store v1alpha1.WORMConfig
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: v1alpha1.SingletonName}, &store)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read WORMConfig: %w", err)
	}
	return &store, nil
}

// inFlight counts what is not released: the label goes a moment after the condition stands.
func inFlight(incidents []v1alpha1.Incident) int32 {
	var count int32
	for i := range incidents {
		if !meta.IsStatusConditionTrue(incidents[i].Status.Conditions, v1alpha1.ConditionReleased) {
			count++
		}
	}
	return count
}
