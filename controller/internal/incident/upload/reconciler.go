package upload

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// +kubebuilder:rbac:groups=security.ugallu.io,resources=eventresponses;attestationbundles;incidents,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=wormconfigs,verbs=get
// +kubebuilder:rbac:groups=security.ugallu.io,resources=eventresponses/status,verbs=patch

const (
	fieldOwner = "ugallu-forensics-upload"
	// settledWithin is how long a manifest waits, after the capture ended, for digests that somebody else observed and for
	// the cluster state.
	settledWithin = 2 * time.Minute
	// clusterCheck is how soon the cluster state is looked for again.
	clusterCheck = time.Second
	// storeRetry is how soon a store that did not answer is asked again.
	storeRetry = 5 * time.Second
	// storeTimeout bounds one conversation with the store, so that a hanging one does not hold a worker.
	storeTimeout = 30 * time.Second
	// conflictDelay is the wait after somebody else changed the order in the middle of it.
	conflictDelay = 50 * time.Millisecond
	// workers of this controller, apart from those that contain pods: a slow store never delays a containment.
	workers = 4
)

// Reconciler executes the orders. Everything that it decides from is in the objects: a manifest is the same after a
// restart, byte for byte.
type Reconciler struct {
	// Client reads through the cache and writes.
	Client client.Client
	// Open opens the bucket of an order.
	Open func(ctx context.Context, to v1alpha1.Destination) (worm.Store, error)
	// Reporter says who asserts what a closed order says, and what the clocks say.
	Reporter func() (v1alpha1.Reporter, error)
	// ReadBack is the account that observes digests.
	ReadBack string
	// Clock is the only source of time.
	Clock clock.PassiveClock
}

// SetupWithManager watches the orders, and the bundles that carry observed digests.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	err := ctrl.NewControllerManagedBy(mgr).
		Named("upload").
		For(&v1alpha1.EventResponse{}, builder.WithPredicates(predicate.NewPredicateFuncs(ours))).
		Watches(&v1alpha1.AttestationBundle{}, handler.EnqueueRequestsFromMapFunc(r.readBack)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up upload: %w", err)
	}
	return nil
}

func ours(object client.Object) bool {
	order, ok := object.(*v1alpha1.EventResponse)
	return ok && order.Spec.Action.Type == v1alpha1.ActionEvidenceUpload && order.Spec.NodeName == "" && order.Status.CompletedAt == nil
}

// readBack maps the bundle of a capture to the upload that waits for it.
func (r *Reconciler) readBack(ctx context.Context, object client.Object) []reconcile.Request {
	bundle, ok := object.(*v1alpha1.AttestationBundle)
	if !ok || bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedEventResponse {
		return nil
	}
	var capture v1alpha1.EventResponse
	err := r.Client.Get(ctx, client.ObjectKey{Name: bundle.Spec.AttestedFor.Name}, &capture)
	if err != nil {
		if !apierrors.IsNotFound(err) {
			log.FromContext(ctx).Error(err, "read the response of a bundle", "bundle", bundle.Name)
		}
		return nil
	}
	if capture.Spec.Action.Type != v1alpha1.ActionFilesystemSnapshot {
		return nil
	}
	return []reconcile.Request{{NamespacedName: client.ObjectKey{Name: v1alpha1.ResponseName(capture.Spec.IncidentName, v1alpha1.StepUpload, 1)}}}
}

// Reconcile executes one order until it is closed.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var order v1alpha1.EventResponse
	if err := r.Client.Get(ctx, request.NamespacedName, &order); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !ours(&order) {
		return ctrl.Result{}, nil
	}
	after, err := r.execute(ctx, &order)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("response %s: %w", request.Name, err)
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// execute returns when to look again, or 0 once the order is closed.
func (r *Reconciler) execute(ctx context.Context, order *v1alpha1.EventResponse) (time.Duration, error) {
	if deadline := order.Spec.Deadline; deadline != nil && !r.Clock.Now().Before(deadline.Time) {
		return 0, r.expire(ctx, order)
	}
	begun := r.Clock.Now()
	material, err := r.gather(ctx, order)
	if err != nil {
		return 0, err
	}
	if left := r.patience(order, material); left > 0 {
		return left, r.waitsForStore(ctx, order, material.cluster)
	}
	if err := r.settle(ctx, order, &material); err != nil {
		return 0, err
	}
	manifest, err := r.manifest(order, material)
	if err != nil {
		return 0, err
	}
	stored, err := r.store(ctx, order, manifest)
	if err != nil {
		return storeRetry, r.unreachable(ctx, order, err)
	}
	return 0, r.succeed(ctx, order, stored, ending{begun: begun, material: material})
}

// patience is how long to wait on for the read-back and the cluster state; 0 when both are there or no longer waited for.
func (r *Reconciler) patience(order *v1alpha1.EventResponse, m material) time.Duration {
	left := settledWithin - r.Clock.Since(m.captureEnded())
	if !clusterStored(m.cluster) && !withoutCluster(order) && (left > 0 || storeFails(m.cluster)) {
		return clusterCheck
	}
	if m.observed != nil || abandoned(order) {
		return 0
	}
	return max(left, 0)
}

// settle records what the manifest is made without before it is built: what arrives later must not make it another one.
func (r *Reconciler) settle(ctx context.Context, order *v1alpha1.EventResponse, m *material) error {
	before := order.DeepCopy()
	if m.observed == nil && !abandoned(order) {
		r.set(order, v1alpha1.ConditionReadBack, metav1.ConditionFalse, gapReadBackMissing,
			"no read-back within "+settledWithin.String()+"; look at Deployment ugallu-system-privileged/ugallu-forensics-snapshot")
	}
	if !clusterStored(m.cluster) && !withoutCluster(order) {
		r.set(order, v1alpha1.ConditionClusterState, metav1.ConditionFalse, evidence.GapClusterStateMissing, clusterGaps(m.cluster)[0].Message)
	}
	if len(order.Status.Conditions) != len(before.Status.Conditions) {
		r.start(order)
		if err := r.patch(ctx, order, before); err != nil {
			return err
		}
	}
	if abandoned(order) {
		m.observed = nil
	}
	if missing := meta.FindStatusCondition(order.Status.Conditions, v1alpha1.ConditionClusterState); missing != nil {
		m.cluster = nil
	}
	return nil
}
