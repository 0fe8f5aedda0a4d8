package incident

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/v1alpha1"
)

// +kubebuilder:rbac:groups=security.ugallu.io,resources=incidents,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=incidents/status;eventresponses/status;securityevents/status,verbs=patch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=eventresponses;securityevents,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestationbundles;forensicsconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get
// +kubebuilder:rbac:groups="",namespace=ugallu-system,resources=secrets,resourceNames=ugallu-acknowledgement-key,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

const (
	// fieldOwner is the field manager of incidents and of what the steps write.
	fieldOwner = "ugallu-forensics-incident"
	// conflictDelay is the wait after somebody else changed an object in the middle of a step.
	conflictDelay = 50 * time.Millisecond
	// lookAgain bounds how long an open incident rests: what the watches miss is found then.
	lookAgain = 5 * time.Minute
)

// Policies keeps the deny-all network policy of a pod.
type Policies interface {
	// Ensure makes the policy stand; known is nil the first time. It returns known when nothing had to be done, and asks
	// upToDate before it repairs.
	Ensure(
		ctx context.Context, pod v1alpha1.PodRef, labels map[string]string, known *v1alpha1.AppliedPolicy,
		upToDate func() error,
	) (*v1alpha1.AppliedPolicy, error)
	// Remove takes it away; one that is gone is success.
	Remove(ctx context.Context, pod v1alpha1.PodRef) error
}

// Dependencies are what the steps work with.
type Dependencies struct {
	// Client reads through the cache and writes.
	Client client.Client
	// Live reads past the cache, where a stale answer would let a pod go or order twice.
	Live client.Reader
	// Policies applies and removes network policies.
	Policies Policies
	// Recorder emits Kubernetes events.
	Recorder events.EventRecorder
	// Clock is the only source of time.
	Clock clock.PassiveClock
}

// Reconciler walks incidents through the steps. It keeps no state: the incident's status is the program counter.
type Reconciler struct {
	Dependencies
	all    []step
	closed []step
}

// New arranges the steps.
func New(d Dependencies) *Reconciler {
	o := &orders{client: d.Client, live: d.Live, clock: d.Clock}
	h := &hold{client: d.Client, live: d.Live, policies: d.Policies}
	a := &announcer{client: d.Client, live: d.Live}
	sealed, custody, tidy := &attestedStep{client: d.Client}, &custodyStep{client: d.Client}, &tidyStep{client: d.Client}
	return &Reconciler{
		Dependencies: d,
		all: []step{
			&dryRunStep{},
			&containStep{orders: o, hold: h},
			&captureStep{orders: o, slots: &slots{client: d.Client}},
			&uploadStep{orders: o, announcer: a},
			&failStep{announcer: a},
			sealed,
			custody,
			&acknowledgeStep{client: d.Client},
			&releaseStep{orders: o, hold: h},
			tidy,
		},
		closed: []step{sealed, custody, tidy},
	}
}

// Reconcile walks one incident as far as it goes now.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var incident v1alpha1.Incident
	if err := r.Client.Get(ctx, request.NamespacedName, &incident); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	after, err := r.walk(ctx, newScene(&incident, r.Clock.Now()))
	if apierrors.IsConflict(err) || errors.Is(err, errStale) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	if errors.Is(err, errForeign) {
		return ctrl.Result{}, reconcile.TerminalError(fmt.Errorf("incident %s: %w", request.Name, err))
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("incident %s: %w", request.Name, err)
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

// walk records what each step found before the next one starts.
func (r *Reconciler) walk(ctx context.Context, s *scene) (time.Duration, error) {
	steps := r.all
	if s.is(v1alpha1.ConditionReleased) {
		steps = r.closed
	}
	var after time.Duration
	if !s.is(v1alpha1.ConditionReleased) {
		after = lookAgain
	}
	for _, step := range steps {
		next, err := step.run(ctx, s)
		if errors.Is(err, errForeign) && !s.is(v1alpha1.ConditionFailed) {
			// Trying again would not help: the incident fails, is announced as failed, and waits to be released.
			s.set(v1alpha1.ConditionFailed, metav1.ConditionTrue, v1alpha1.ReasonOrderRefused, err.Error())
			next, err = waiting(conflictDelay), nil
		}
		// What a step found out stands, also when it could not finish.
		if recorded := r.record(ctx, s); recorded != nil {
			return 0, recorded
		}
		if err != nil {
			return 0, err
		}
		if next.after > 0 && (after == 0 || next.after < after) {
			after = next.after
		}
		if !next.done {
			break
		}
	}
	return after, nil
}
