package readback

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

const (
	// fieldOwner of status.observed and of the condition ReadBack.
	fieldOwner = client.FieldOwner("ugallu-readback")
	// workers read one response's objects each; the store's bandwidth is the limit, not the processor.
	workers = 4
	// A store that cannot be reached is asked again after firstRetry, doubling up to lastRetry.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// Reconciler reads back what the responses' bundles are about to attest.
type Reconciler struct {
	Client client.Client
	// Live reads past the cache.
	Live  client.Reader
	Clock clock.PassiveClock
	// Store opens a bucket for reading.
	Store func(ctx context.Context, bucket string) (worm.Reader, error)
}

// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestationbundles;eventresponses;incidents;wormconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestationbundles/status,verbs=patch

// SetupWithManager starts the reconciler for the bundles of responses.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry)
	return ctrl.NewControllerManagedBy(mgr).
		Named("readback").
		For(&v1alpha1.AttestationBundle{}, builder.WithPredicates(created())).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: limiter}).
		Complete(r)
}

// created passes new bundles only: a response's record is final before its bundle exists, so that no later change of a
// bundle is a reason to read.
func created() predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// Reconcile reads every object that a response names and gives the verdict.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var bundle v1alpha1.AttestationBundle
	if err := r.Client.Get(ctx, request.NamespacedName, &bundle); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	// A bundle that countersigns says nothing anew: what was stored is read back once.
	if bundle.Spec.AttestedFor.Kind != v1alpha1.AttestedEventResponse || bundle.Spec.Countersigns != nil || done(&bundle) {
		return ctrl.Result{}, nil
	}
	response, err := r.response(ctx, bundle.Spec.AttestedFor.Ref)
	if err != nil || response == nil || len(response.Status.StoredObjects()) == 0 {
		return ctrl.Result{}, err // without stored objects the attestor has nothing to wait for
	}
	found, err := r.read(ctx, response)
	if err != nil {
		reason, message := destination.Trouble(err)
		unreachable := metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: shorten(message)}
		return ctrl.Result{}, errors.Join(err, r.record(ctx, bundle.Name, unreachable, nil))
	}
	verdict := found.verdict()
	if err := r.record(ctx, bundle.Name, verdict, found.observed); err != nil {
		return ctrl.Result{}, err
	}
	log.FromContext(ctx).Info("read back", "response", response.Name, "objects", len(found.observed), "reason", verdict.Reason)
	return ctrl.Result{}, nil
}

// response is nil when it is gone: what it asserted is gone with it.
func (r *Reconciler) response(ctx context.Context, ref v1alpha1.Ref) (*v1alpha1.EventResponse, error) {
	var response v1alpha1.EventResponse
	// Past the cache: a cached response may be older than the bundle that announces its end.
	err := r.Live.Get(ctx, client.ObjectKey{Name: ref.Name}, &response)
	if apierrors.IsNotFound(err) || (err == nil && string(response.UID) != ref.UID) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read response %s: %w", ref.Name, err)
	}
	return &response, nil
}

// record writes the verdict. It reads the bundle anew, because other stages wrote while the objects were read.
func (r *Reconciler) record(
	ctx context.Context, name string, verdict metav1.Condition, observed []v1alpha1.ObservedObject,
) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var bundle v1alpha1.AttestationBundle
		if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, &bundle); err != nil {
			return client.IgnoreNotFound(err)
		}
		before := bundle.DeepCopy()
		verdict.Type = v1alpha1.ConditionReadBack
		verdict.ObservedGeneration = bundle.Generation
		verdict.LastTransitionTime = metav1.NewTime(r.Clock.Now())
		changed := meta.SetStatusCondition(&bundle.Status.Conditions, verdict)
		if observed != nil {
			bundle.Status.Observed = observed
		} else if !changed {
			return nil
		}
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		return r.Client.Status().Patch(ctx, &bundle, patch, fieldOwner)
	})
	if err != nil {
		return fmt.Errorf("record read-back in bundle %s: %w", name, err)
	}
	return nil
}

// done is whether the verdict is final: agreement is, and so is what the store holds locked.
func done(bundle *v1alpha1.AttestationBundle) bool {
	condition := meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionReadBack)
	return condition != nil &&
		(condition.Status == metav1.ConditionTrue || condition.Reason == v1alpha1.ReasonDigestMismatch)
}
