package attestor

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
	"ugallu.io/forensics/internal/worm"
)

const (
	// fieldOwner of everything that the attestor writes.
	fieldOwner = client.FieldOwner("ugallu-attestor")
	// workers: each entry waits about a second for the log's next batch, and entries of one batch cost nothing more.
	workers = 32
	// A stage that failed is tried again after firstRetry, doubling up to lastRetry: a server that is away for a
	// minute delays a seal by seconds, and a hundred bundles that wait for it ask it three times a second.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
	// conflictRetry lets the cache catch up with the write that won.
	conflictRetry = 100 * time.Millisecond
)

// Notary signs, logs and verifies; *attest.Notary is the real one.
type Notary interface {
	// Sign returns the envelope and the name of who signed. attest.ErrUnknownKey: nobody trusts them.
	Sign(ctx context.Context, statement []byte) (envelope []byte, signer string, err error)
	// Publish returns the bundle. attest.ErrDuplicate, attest.ErrExpired: sign again.
	Publish(ctx context.Context, envelope []byte) ([]byte, error)
	Verify(bundle []byte) (attest.Verified, error)
}

// Reconciler drives each bundle through its stages: Signed, Logged, Sealed. What a stage made is persisted before the
// next one starts, so that a crash repeats one stage at most.
type Reconciler struct {
	Client client.Client
	// Live reads past the cache whether something is gone.
	Live  client.Reader
	Clock clock.PassiveClock
	// Account that signs, as the API server knows it.
	Account string
	// Modes that the current configuration signs in, the first one first.
	Modes func(context.Context) ([]v1alpha1.SigningMode, error)
	// Notary of the current configuration for one mode. One that can not be signed in any more, for there is no
	// configuration of its servers, is logged and verified all the same: Sign returns ErrModeWithdrawn.
	Notary func(context.Context, v1alpha1.SigningMode) (Notary, error)
	// Store opens a bucket; "" is the WORMConfig's own.
	Store func(ctx context.Context, bucket string) (worm.Store, error)
	// Trust is what the attestor trusts now, by entry, to be archived beside a custody record.
	Trust func(context.Context) (map[string]string, error)
}

// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestationbundles,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestationbundles/status,verbs=patch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=securityevents;eventresponses;incidents,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=securityevents/status,verbs=patch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=forensicsconfigs;wormconfigs;attestorconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestorconfigs/status,verbs=patch
// +kubebuilder:rbac:groups="",namespace=ugallu-system,resources=configmaps,resourceNames=ugallu-trusted-root,verbs=get

// SetupWithManager starts the reconciler for every bundle.
func (r *Reconciler) SetupWithManager(mgr ctrl.Manager) error {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](firstRetry, lastRetry)
	return ctrl.NewControllerManagedBy(mgr).
		Named("attestor").
		For(&v1alpha1.AttestationBundle{}, builder.WithPredicates(readBackChanged())).
		Watches(&v1alpha1.AttestationBundle{}, r.recordsOf(), builder.WithPredicates(sealedNow())).
		Watches(&v1alpha1.AttestationBundle{}, handler.EnqueueRequestsFromMapFunc(countersigned)).
		Watches(&v1alpha1.Incident{}, handler.EnqueueRequestsFromMapFunc(namedOf), builder.WithPredicates(namesChanged())).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, RateLimiter: limiter}).
		Complete(r)
}

// readBackChanged passes new bundles and the read-back's verdict. The attestor's own writes pass by: a failure that is
// recorded must not start the next try before its time.
func readBackChanged() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return true },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, okBefore := e.ObjectOld.(*v1alpha1.AttestationBundle)
			after, okAfter := e.ObjectNew.(*v1alpha1.AttestationBundle)
			return okBefore && okAfter && readBackDone(&before.Status) != readBackDone(&after.Status)
		},
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
	}
}

// Reconcile takes a bundle as far as it goes.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var bundle v1alpha1.AttestationBundle
	if err := r.Client.Get(ctx, request.NamespacedName, &bundle); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !bundle.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	if over, err := r.abandoned(ctx, &bundle); err != nil || over {
		return ctrl.Result{}, err
	}
	job := &job{bundle: &bundle}
	for _, stage := range r.stages(&bundle) {
		if stage.done(&job.bundle.Status) {
			continue
		}
		result, err := r.run(ctx, stage, job)
		if apierrors.IsConflict(err) {
			return ctrl.Result{RequeueAfter: conflictRetry}, nil
		}
		if err != nil || result.RequeueAfter > 0 || !stage.done(&job.bundle.Status) {
			return result, err
		}
	}
	if err := r.keepCountersignatures(ctx, job.bundle); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, r.publish(ctx, job.bundle)
}

// stage makes one thing and records it.
type stage struct {
	// condition that a failure is recorded under.
	condition string
	done      func(*v1alpha1.AttestationBundleStatus) bool
	// act changes the status of job.bundle, which run persists when it returns nil or errAgain.
	act func(context.Context, *job) error
}

// job is one pass over one bundle; it keeps what several stages need.
type job struct {
	bundle *v1alpha1.AttestationBundle
	notary Notary
}

func (r *Reconciler) stages(bundle *v1alpha1.AttestationBundle) []stage {
	signed := isTrue(v1alpha1.ConditionSigned)
	begin := append(r.recordStages(bundle),
		stage{condition: v1alpha1.ConditionSigned, done: readBackDone, act: r.readBack},
		stage{condition: v1alpha1.ConditionSigned, done: signed, act: r.sign})
	if bundle.Spec.Countersigns != nil {
		begin = []stage{{condition: v1alpha1.ConditionSigned, done: signed, act: r.countersign}}
	}
	return append(begin,
		stage{condition: v1alpha1.ConditionLogged, done: isTrue(v1alpha1.ConditionLogged), act: r.log},
		stage{condition: v1alpha1.ConditionSealed, done: stored, act: r.seal},
		stage{condition: v1alpha1.ConditionSealed, done: isTrue(v1alpha1.ConditionSealed), act: r.awaitCountersignatures})
}

func stored(status *v1alpha1.AttestationBundleStatus) bool { return status.Object != nil }

// run acts and persists what came of it: success, a reason to wait, or a failure.
func (r *Reconciler) run(ctx context.Context, stage stage, job *job) (ctrl.Result, error) {
	before := job.bundle.DeepCopy()
	err := stage.act(ctx, job)
	if err == nil || errors.Is(err, errAgain) {
		if patchErr := r.persist(ctx, before, job.bundle); patchErr != nil {
			return ctrl.Result{}, patchErr
		}
		if err != nil {
			return ctrl.Result{RequeueAfter: conflictRetry}, nil //nolint:nilerr // a wait is no failure
		}
		log.FromContext(ctx).Info("stage done", "condition", stage.condition, "phase", job.bundle.Status.Phase)
		return ctrl.Result{}, nil
	}
	job.bundle = before.DeepCopy()
	reason, requeue, cause := outcome(err)
	r.set(job.bundle, stage.condition, conditionFalse(reason, err.Error()))
	patchErr := r.persist(ctx, before, job.bundle)
	if apierrors.IsConflict(patchErr) {
		return ctrl.Result{}, patchErr
	}
	if err := errors.Join(cause, patchErr); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: requeue}, nil
}

// persist writes the status if it changed, provided that nobody else wrote in between.
func (r *Reconciler) persist(ctx context.Context, before, after *v1alpha1.AttestationBundle) error {
	after.Status.Phase = phase(&after.Status)
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	data, err := patch.Data(after)
	if err != nil {
		return fmt.Errorf("diff status of bundle %s: %w", after.Name, err)
	}
	unchanged, err := patch.Data(before)
	if err != nil {
		return fmt.Errorf("diff status of bundle %s: %w", after.Name, err)
	}
	if string(data) == string(unchanged) {
		return nil
	}
	if err := r.Client.Status().Patch(ctx, after, patch, fieldOwner); err != nil {
		return fmt.Errorf("patch status of bundle %s: %w", after.Name, err)
	}
	return nil
}

// notary of this pass, opened when the first stage needs it.
func (r *Reconciler) notary(ctx context.Context, job *job) (Notary, error) {
	if job.notary != nil {
		return job.notary, nil
	}
	mode, err := r.mode(ctx, job.bundle)
	if err != nil {
		return nil, err
	}
	notary, err := r.Notary(ctx, mode)
	if err != nil {
		return nil, failure(v1alpha1.ReasonConfigInvalid, err)
	}
	job.notary = notary
	return notary, nil
}

func isTrue(condition string) func(*v1alpha1.AttestationBundleStatus) bool {
	return func(status *v1alpha1.AttestationBundleStatus) bool {
		return meta.IsStatusConditionTrue(status.Conditions, condition)
	}
}
