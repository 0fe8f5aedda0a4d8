package attestor

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"ugallu.io/forensics/api/v1alpha1"
)

const (
	// readyInterval between two looks at signer and trust while both are as they should be.
	readyInterval = time.Minute
	// repairInterval between two looks while somebody repairs what the condition names.
	repairInterval = 5 * time.Second
)

// Readiness says in the AttestorConfig whether the attestor could sign now.
type Readiness struct {
	Client        client.Client
	Clock         clock.PassiveClock
	Configuration *Configuration
}

// SetupWithManager starts the reconciler for the AttestorConfig.
func (r *Readiness) SetupWithManager(mgr ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(mgr).
		Named("attestor-config").
		For(&v1alpha1.AttestorConfig{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Complete(r)
}

// Reconcile sets Ready.
func (r *Readiness) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var config v1alpha1.AttestorConfig
	if err := r.Client.Get(ctx, request.NamespacedName, &config); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := config.DeepCopy()
	ready := r.check(ctx, &config)
	ready.Type = v1alpha1.ConditionReady
	ready.ObservedGeneration = config.Generation
	ready.LastTransitionTime = metav1.NewTime(r.Clock.Now())
	changed := meta.SetStatusCondition(&config.Status.Conditions, ready)
	config.Status.ObservedGeneration = config.Generation
	if changed || before.Status.ObservedGeneration != config.Generation {
		if err := r.Client.Status().Patch(ctx, &config, client.MergeFrom(before), fieldOwner); err != nil {
			return ctrl.Result{}, fmt.Errorf("patch status of AttestorConfig: %w", err)
		}
	}
	if ready.Status != metav1.ConditionTrue {
		return ctrl.Result{RequeueAfter: repairInterval}, nil
	}
	return ctrl.Result{RequeueAfter: readyInterval}, nil
}

// check asks every signer that is listed: all of them have to sign each statement.
func (r *Readiness) check(ctx context.Context, config *v1alpha1.AttestorConfig) metav1.Condition {
	modes, err := listed(&config.Spec)
	if err != nil {
		return conditionFalse(v1alpha1.ReasonConfigInvalid, err.Error())
	}
	var names, broken []string
	reason := ""
	for _, mode := range modes {
		name, because, err := r.signer(ctx, config, mode)
		if err != nil {
			reason = cmp.Or(reason, because)
			broken = append(broken, fmt.Sprintf("%s: %s", mode, err))
			continue
		}
		names = append(names, fmt.Sprintf("%s (%s)", name, mode))
	}
	if len(broken) > 0 {
		return conditionFalse(reason, strings.Join(broken, "; "))
	}
	return conditionTrue(v1alpha1.ReasonConfigValid, "signs as "+strings.Join(names, " and as "))
}

// signer of a mode by name, or the reason why it could not sign.
func (r *Readiness) signer(
	ctx context.Context, config *v1alpha1.AttestorConfig, mode v1alpha1.SigningMode,
) (name, reason string, err error) {
	notary, err := r.Configuration.notary(ctx, config, mode)
	if err != nil {
		return "", v1alpha1.ReasonConfigInvalid, err
	}
	if name, err = notary.Check(ctx); err != nil {
		reason, err = blame(err, v1alpha1.ReasonSignerUnavailable)
		return "", reason, err
	}
	return name, "", nil
}
