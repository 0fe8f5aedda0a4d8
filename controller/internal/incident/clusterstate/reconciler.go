package clusterstate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

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
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/destination"
	"ugallu.io/forensics/internal/worm"
)

// +kubebuilder:rbac:groups=security.ugallu.io,resources=incidents,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=incidents/status,verbs=patch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=wormconfigs,verbs=get
// +kubebuilder:rbac:groups="",resources=pods;nodes;serviceaccounts,verbs=get
// +kubebuilder:rbac:groups="",resources=events,verbs=list
// +kubebuilder:rbac:groups=apps,resources=daemonsets;deployments;replicasets;statefulsets,verbs=get
// +kubebuilder:rbac:groups=batch,resources=cronjobs;jobs,verbs=get
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles;roles,verbs=get
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterrolebindings;rolebindings,verbs=list

const (
	fieldOwner = "ugallu-forensics-cluster-state"
	// workers of this controller, apart from those that contain pods: neither a slow store nor a cluster with many role
	// bindings delays a containment.
	workers = 4
	// firstRetry, doubling up to lastRetry, is the wait after a store that did not take it. The manifest waits for it.
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	// readTimeout bounds all questions of one state to the API server, waitTimeout those, the pauses between them, and the wait for
	// the pages of the states that the other workers read, storeTimeout one conversation with the store. The last two together are less than
	// the two minutes that the manifest waits for the state: what the wait leaves out is a gap of a state that is stored.
	readTimeout  = 30 * time.Second
	waitTimeout  = 60 * time.Second
	storeTimeout = 30 * time.Second
)

// errUnencryptable: the incident keeps the recipients that it was opened with, so that trying again does not help. Nothing
// is stored as it is where it was to be encrypted.
var errUnencryptable = errors.New("cannot be encrypted")

// Reconciler reads the state of an incident's pod once, as early as it can, and stores it.
type Reconciler struct {
	// Client reads incidents through the cache and writes.
	Client client.Client
	// Live reads past the cache.
	Live client.Reader
	// Open opens the bucket of an incident.
	Open func(ctx context.Context, to v1alpha1.Destination) (worm.Store, error)
	// Clock is the only source of time.
	Clock clock.PassiveClock

	shelf   shelf
	once    sync.Once
	reading chan struct{}
}

// pages has room for one state, the one whose page of a list is in memory.
func (r *Reconciler) pages() chan struct{} {
	r.once.Do(func() { r.reading = make(chan struct{}, 1) })
	return r.reading
}

// SetupWithManager watches incidents.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry)
	err := ctrl.NewControllerManagedBy(mgr).
		Named("cluster-state").
		For(&v1alpha1.Incident{}, builder.WithPredicates(opened())).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: limiter}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up cluster state: %w", err)
	}
	return nil
}

// opened passes incidents as they appear, at a start those that are there: what comes later is the queue's to repeat.
func opened() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			incident, ok := e.Object.(*v1alpha1.Incident)
			return ok && wanted(incident)
		},
		UpdateFunc:  func(event.UpdateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// wanted says whether the state of an incident's pod is still to be stored. Once the manifest stands it is too late, and
// after the release the pod is no longer the one that was contained.
func wanted(incident *v1alpha1.Incident) bool {
	if incident.Spec.DryRun || (incident.Status.ClusterState != nil && incident.Status.ClusterState.Object != nil) {
		return false
	}
	conditions := incident.Status.Conditions
	return !meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionUploaded) &&
		!meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionReleased)
}

// Reconcile reads and stores until the object is on the incident's record.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var incident v1alpha1.Incident
	// Past the cache: what is on record already must not be stored again as the state of another moment.
	if err := r.Live.Get(ctx, request.NamespacedName, &incident); err != nil {
		r.shelf.drop(request.Name)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !wanted(&incident) {
		r.shelf.drop(request.Name)
		return ctrl.Result{}, nil
	}
	taken, err := r.taken(ctx, &incident)
	if errors.Is(err, errUnencryptable) {
		state := v1alpha1.ClusterState{Reason: v1alpha1.ReasonConfigInvalid, Message: "Incident spec.snapshot.destination.ageRecipients: " + err.Error()}
		if recorded := r.record(ctx, &incident, state); recorded != nil {
			return ctrl.Result{}, recorded
		}
		return ctrl.Result{}, reconcile.TerminalError(fmt.Errorf("incident %s: cluster state: %w", request.Name, err))
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("incident %s: cluster state: %w", request.Name, err)
	}
	state := v1alpha1.ClusterState{TakenAt: &taken.at, Documents: taken.documents, Gaps: taken.gaps}
	stored, err := r.store(ctx, &incident, taken)
	if err != nil {
		state.Reason, state.Message = troubled(err)
		// The queue repeats it; what keeps it is on record meanwhile.
		if recorded := r.record(ctx, &incident, state); recorded != nil {
			return ctrl.Result{}, recorded
		}
		return ctrl.Result{}, fmt.Errorf("incident %s: store cluster state: %w", request.Name, err)
	}
	state.Object = &stored
	if err := r.record(ctx, &incident, state); err != nil {
		return ctrl.Result{}, err
	}
	r.shelf.drop(request.Name)
	log.FromContext(ctx).Info("cluster state stored", "incident", request.Name, "key", stored.Key, "documents", taken.documents)
	return ctrl.Result{}, nil
}

// taken is the state that waits for the store, or a new one. It is kept as it was first read, because the pod may be gone
// when the store is back; only a restart reads again.
func (r *Reconciler) taken(ctx context.Context, incident *v1alpha1.Incident) (taken, error) {
	if waiting, ok := r.shelf.get(incident.Name); ok {
		return waiting, nil
	}
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	now := metav1.NewMicroTime(r.Clock.Now())
	content, err := r.read(ctx, incident)
	if err != nil {
		return taken{}, err
	}
	fresh := taken{at: now, documents: content.documents, gaps: content.gaps, stored: content.yaml}
	if to := incident.Spec.Snapshot.Destination; to.Encryption == v1alpha1.EncryptionAge {
		fresh.plain = plainOf(content.yaml)
		if fresh.stored, err = destination.Encrypt(to.AgeRecipients, content.yaml); err != nil {
			return taken{}, fmt.Errorf("%w: %w", errUnencryptable, err)
		}
	}
	r.shelf.put(incident.Name, fresh)
	return fresh, nil
}

// record writes the state unless another one is stored already.
func (r *Reconciler) record(ctx context.Context, incident *v1alpha1.Incident, state v1alpha1.ClusterState) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var fresh v1alpha1.Incident
		if err := r.Live.Get(ctx, client.ObjectKeyFromObject(incident), &fresh); err != nil {
			return client.IgnoreNotFound(err)
		}
		known := fresh.Status.ClusterState
		if known != nil && (known.Object != nil || (state.Object == nil && known.Reason == state.Reason)) {
			return nil
		}
		before := fresh.DeepCopy()
		fresh.Status.ClusterState = &state
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		return r.Client.Status().Patch(ctx, &fresh, patch, client.FieldOwner(fieldOwner))
	})
	if err != nil {
		return fmt.Errorf("record cluster state of incident %s: %w", incident.Name, err)
	}
	return nil
}
