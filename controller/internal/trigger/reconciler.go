package trigger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/match"
)

// +kubebuilder:rbac:groups=security.ugallu.io,resources=securityevents,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=securityevents/status,verbs=patch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=attestationbundles;forensicsconfigs;wormconfigs;attestorconfigs,verbs=get;list;watch
// +kubebuilder:rbac:groups=security.ugallu.io,resources=incidents,verbs=get;list;watch;create
// +kubebuilder:rbac:groups="",resources=pods,verbs=get
// +kubebuilder:rbac:groups="",namespace=ugallu-system,resources=configmaps,resourceNames=ugallu-trusted-root,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

const (
	// overdueAfter is how long a seal may take before somebody should look: sealing takes about 1 s.
	overdueAfter = 10 * time.Second
	// verifyWithin bounds one look at a bundle in the store: a store that hangs must not hold the workers that judge.
	verifyWithin = 5 * time.Second
	// scheduledWithin is how long a pod without a node is waited for: an event about a pod's creation comes before the
	// scheduler has seen the pod.
	scheduledWithin = time.Minute
	// scheduleCheck is how often such a pod is looked at.
	scheduleCheck = time.Second
	// conflictDelay is the wait after somebody else changed the event in the middle of a verdict.
	conflictDelay = 50 * time.Millisecond
)

// Checker says whether an event's bundle is sealed, and verifies, offline, as an attestation of exactly this event.
type Checker interface {
	Attested(ctx context.Context, event *v1alpha1.SecurityEvent) (bool, error)
}

// Reconciler judges events.
type Reconciler struct {
	// Client reads through the cache and writes.
	Client client.Client
	// Live reads past the cache: pods, which are not cached, and events whose recorded verdict decides.
	Live client.Reader
	// Checker verifies seals.
	Checker Checker
	// Recorder emits Kubernetes events.
	Recorder events.EventRecorder
	// Clock tells the age of events.
	Clock clock.PassiveClock

	overdue      overdueSet
	unconfigured sync.Once
}

// Reconcile judges one event unless its verdict stands.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var event v1alpha1.SecurityEvent
	err := r.Client.Get(ctx, request.NamespacedName, &event)
	if apierrors.IsNotFound(err) {
		r.overdue.remove(request.Name)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read event %s: %w", request.Name, err)
	}
	if settled(&event) {
		r.overdue.remove(request.Name)
		return ctrl.Result{}, nil
	}
	var config v1alpha1.ForensicsConfig
	err = r.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.SingletonName}, &config)
	if apierrors.IsNotFound(err) {
		r.unconfigured.Do(func() {
			log.FromContext(ctx).Info("no ForensicsConfig named default: nothing matches until there is one")
		})
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read ForensicsConfig: %w", err)
	}
	result, err := r.judge(ctx, request.Name, &config)
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: conflictDelay}, nil
	}
	return result, err
}

// settled says whether the event has its last verdict. Forensic events are ours and are never judged.
func settled(event *v1alpha1.SecurityEvent) bool {
	if event.Spec.Class == v1alpha1.ClassForensic {
		return true
	}
	matched := meta.FindStatusCondition(event.Status.Conditions, v1alpha1.ConditionMatched)
	return matched != nil && matched.Reason != Reason(match.NotAttested)
}

// judge works on a fresh copy of the event: the verdict recorded last is the one that counts, after a change of leader too.
func (r *Reconciler) judge(ctx context.Context, name string, config *v1alpha1.ForensicsConfig) (ctrl.Result, error) {
	var event v1alpha1.SecurityEvent
	if err := r.Live.Get(ctx, client.ObjectKey{Name: name}, &event); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if settled(&event) {
		return ctrl.Result{}, nil
	}
	opened, err := r.opened(ctx, &event)
	if err != nil {
		return ctrl.Result{}, err
	}
	if opened {
		return ctrl.Result{}, r.recordOpened(ctx, &event)
	}
	pod, err := r.resolve(ctx, &event, config)
	if err != nil {
		return ctrl.Result{}, err
	}
	if pod.unscheduled && r.age(&event) < scheduledWithin {
		return ctrl.Result{RequeueAfter: scheduleCheck}, nil
	}
	verdict, err := r.verdict(ctx, config.Spec, match.Subject{Event: &event, Pod: pod.Pod, Now: r.Clock.Now()})
	if err != nil {
		// A store or a log that does not answer must not keep the alarm from ringing.
		_, alarm := r.wait(ctx, &event, config)
		return ctrl.Result{}, errors.Join(err, alarm)
	}
	switch verdict {
	case match.Matched:
		if err := r.open(ctx, &event, pod.ref, config); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, r.recordOpened(ctx, &event)
	case match.NotAttested:
		return r.wait(ctx, &event, config)
	default:
		return ctrl.Result{}, r.recordMiss(ctx, &event, verdict)
	}
}

// verdict asks for the seal only when everything else fits, and only when somebody claims that there is one.
func (r *Reconciler) verdict(ctx context.Context, config v1alpha1.ForensicsConfigSpec, subject match.Subject) (match.Reason, error) {
	reason := match.Match(config, subject)
	if reason != match.NotAttested {
		return reason, nil
	}
	claimed, err := r.claimed(ctx, subject.Event)
	if err != nil || !claimed {
		return reason, err
	}
	within, cancel := context.WithTimeout(ctx, verifyWithin)
	defer cancel()
	subject.Attested, err = r.Checker.Attested(within, subject.Event)
	if err != nil {
		return reason, fmt.Errorf("verify the bundle of event %s: %w", subject.Event.Name, err)
	}
	return match.Match(config, subject), nil
}

func (r *Reconciler) claimed(ctx context.Context, event *v1alpha1.SecurityEvent) (bool, error) {
	if event.Status.Phase == v1alpha1.EventAttested {
		return true, nil
	}
	var bundle v1alpha1.AttestationBundle
	err := r.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.BundleName(string(event.UID))}, &bundle)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the bundle of event %s: %w", event.Name, err)
	}
	return meta.IsStatusConditionTrue(bundle.Status.Conditions, v1alpha1.ConditionSealed), nil
}

// wait records that only the seal is missing, and wakes when it is overdue, or when the event is too old for a seal to
// help.
func (r *Reconciler) wait(ctx context.Context, event *v1alpha1.SecurityEvent, config *v1alpha1.ForensicsConfig) (ctrl.Result, error) {
	age := r.age(event)
	overdue := age >= overdueAfter
	if err := r.recordWaiting(ctx, event, overdue); err != nil {
		return ctrl.Result{}, err
	}
	if !overdue {
		return ctrl.Result{RequeueAfter: overdueAfter - age}, nil
	}
	if limit := config.Spec.Trigger.MaxEventAge; limit != nil {
		// Strictly older is too old.
		return ctrl.Result{RequeueAfter: max(limit.Duration-r.Clock.Since(match.Occurred(event)), 0) + time.Second}, nil
	}
	return ctrl.Result{}, nil
}

func (r *Reconciler) age(event *v1alpha1.SecurityEvent) time.Duration {
	return r.Clock.Since(event.CreationTimestamp.Time)
}

func (r *Reconciler) opened(ctx context.Context, event *v1alpha1.SecurityEvent) (bool, error) {
	var incident v1alpha1.Incident
	// Past the cache: an incident opened a moment ago must not be followed by a verdict that denies it.
	err := r.Live.Get(ctx, client.ObjectKey{Name: v1alpha1.IncidentName(string(event.UID))}, &incident)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for the incident of event %s: %w", event.Name, err)
	}
	log.FromContext(ctx).V(1).Info("incident stands already", "incident", incident.Name)
	return true, nil
}

func condition(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}
