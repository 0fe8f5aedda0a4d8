package attestor

import (
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxMessage of a condition; the API allows 32 KiB, a person reads less.
const maxMessage = 1024

// errAgain is returned by a stage that persisted something and must run once more.
var errAgain = errors.New("run the stage again")

// stageError is a failure with the reason to record. It is tried again unless final.
type stageError struct {
	reason string
	err    error
	final  bool
}

func (e *stageError) Error() string { return e.err.Error() }
func (e *stageError) Unwrap() error { return e.err }

func failure(reason string, err error) error { return &stageError{reason: reason, err: err} }

// waiting is not a failure: somebody else has to finish first.
type waiting struct {
	message string
	after   time.Duration
}

func (w *waiting) Error() string { return w.message }

// outcome splits what a stage returned into the reason to record, when to look again without counting a failure, and
// the failure itself, if it counts.
func outcome(err error) (reason string, requeue time.Duration, cause error) {
	if wait, ok := errors.AsType[*waiting](err); ok {
		return v1alpha1.ReasonWaiting, wait.after, nil
	}
	if failed, ok := errors.AsType[*stageError](err); ok {
		if failed.final {
			return failed.reason, 0, nil
		}
		return failed.reason, 0, err
	}
	return v1alpha1.ReasonFailed, 0, err
}

func conditionTrue(reason, message string) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionTrue, Reason: reason, Message: cut(message)}
}

func conditionFalse(reason, message string) metav1.Condition {
	return metav1.Condition{Status: metav1.ConditionFalse, Reason: reason, Message: cut(message)}
}

func cut(message string) string { return message[:min(len(message), maxMessage)] }

// set records a condition at the reconciler's time.
func (r *Reconciler) set(bundle *v1alpha1.AttestationBundle, condition string, value metav1.Condition) {
	value.Type = condition
	value.ObservedGeneration = bundle.Generation
	value.LastTransitionTime = metav1.NewTime(r.Clock.Now())
	meta.SetStatusCondition(&bundle.Status.Conditions, value)
}

// phase is computed from the conditions.
func phase(status *v1alpha1.AttestationBundleStatus) v1alpha1.BundlePhase {
	if isTrue(v1alpha1.ConditionSealed)(status) {
		return v1alpha1.BundleSealed
	}
	for _, name := range []string{v1alpha1.ConditionSigned, v1alpha1.ConditionLogged, v1alpha1.ConditionSealed} {
		condition := meta.FindStatusCondition(status.Conditions, name)
		if condition != nil && condition.Status == metav1.ConditionFalse && condition.Reason != v1alpha1.ReasonWaiting {
			return v1alpha1.BundleFailed
		}
	}
	switch {
	case isTrue(v1alpha1.ConditionLogged)(status):
		return v1alpha1.BundleLogged
	case isTrue(v1alpha1.ConditionSigned)(status):
		return v1alpha1.BundleSigned
	default:
		return v1alpha1.BundlePending
	}
}

// readBackDone is whether the read-back has its verdict: everything agrees, or something never will.
func readBackDone(status *v1alpha1.AttestationBundleStatus) bool {
	condition := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionReadBack)
	return condition != nil &&
		(condition.Status == metav1.ConditionTrue || condition.Reason == v1alpha1.ReasonDigestMismatch)
}
