package policy

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=cilium.io,resources=ciliumnetworkpolicies,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups=cilium.io,resources=ciliumclusterwidenetworkpolicies,verbs=list
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=adminnetworkpolicies;baselineadminnetworkpolicies;clusternetworkpolicies,verbs=list
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get

// Policies applies, repairs and removes the deny-all policies of pods.
type Policies struct {
	client   client.Client
	live     client.Reader
	detector *Detector
	clock    clock.PassiveClock
	// reading has room for one reader, the one whose page of other policies is in memory.
	reading chan struct{}
	// unrecorded spares a walk the reading that one before it made.
	unrecorded unrecorded
}

// New writes through c and reads through live, which bypasses every cache: a policy that somebody removed a moment
// ago must not be taken for one that stands. c may cache the metadata of policies, with our labels.
func New(c client.Client, live client.Reader, detector *Detector, clock clock.PassiveClock) *Policies {
	return &Policies{client: c, live: live, detector: detector, clock: clock, reading: make(chan struct{}, 1)}
}

// Ensure makes the pod's policy stand and returns its record. With known nil it is applied for the first time, with the
// backend found now; otherwise the known one is kept when it is intact, and applied again and counted when it is not.
// labels are the pod's, which say what other policies select it. Before it repairs, upToDate is asked whether the known one is
// the newest: one from before the last repair would have this one done, or counted, again.
func (p *Policies) Ensure(
	ctx context.Context, pod v1alpha1.PodRef, labels map[string]string, known *v1alpha1.AppliedPolicy,
	upToDate func() error,
) (*v1alpha1.AppliedPolicy, error) {
	if known == nil {
		return p.first(ctx, pod, labels)
	}
	p.unrecorded.drop(known.Ref.UID)
	current, err := p.intact(ctx, known.Backend, pod)
	if err != nil {
		return nil, err
	}
	if current != nil && string(current.GetUID()) == known.Ref.UID {
		return known, nil
	}
	if err := upToDate(); err != nil {
		return nil, err
	}
	again := known.DeepCopy()
	if again.Backend, err = p.left(ctx, known.Backend); err != nil {
		return nil, err
	}
	if again.Ref, err = p.apply(ctx, again.Backend, pod); err != nil {
		return nil, err
	}
	again.Reapplied++
	return again, nil
}

// left is the backend to apply a policy with again: the one that it had, unless Cilium went and took its policies along.
func (p *Policies) left(ctx context.Context, had v1alpha1.FreezeBackend) (v1alpha1.FreezeBackend, error) {
	if had != v1alpha1.BackendCilium {
		return had, nil
	}
	return p.detector.Backend(ctx)
}

// first does not write when the policy was applied already: for another incident on the same pod, or for this one before
// a crash. One of the same content that somebody else created says nothing of when, and is taken over.
func (p *Policies) first(ctx context.Context, pod v1alpha1.PodRef, labels map[string]string) (*v1alpha1.AppliedPolicy, error) {
	backend, err := p.detector.Backend(ctx)
	if err != nil {
		return nil, err
	}
	applied := &v1alpha1.AppliedPolicy{Backend: backend}
	current, err := p.intact(ctx, backend, pod)
	if err != nil {
		return nil, err
	}
	if current != nil && appliedAt(current) != nil {
		applied.Ref = v1alpha1.Ref{Name: current.GetName(), UID: string(current.GetUID())}
		applied.AppliedAt = metav1.NewMicroTime(appliedAt(current).Time)
	} else {
		if applied.Ref, err = p.apply(ctx, backend, pod); err != nil {
			return nil, err
		}
		applied.AppliedAt = metav1.NewMicroTime(p.clock.Now())
	}
	read, ok := p.unrecorded.get(applied.Ref.UID)
	if !ok {
		if read, err = p.others(ctx, pod, labels); err != nil {
			return nil, err
		}
		p.unrecorded.put(applied.Ref.UID, read)
	}
	applied.Others, applied.OthersOmitted = read.others, read.omitted
	return applied, nil
}

// intact returns the pod's policy, or nil when there is none or it is not what was applied.
func (p *Policies) intact(ctx context.Context, backend v1alpha1.FreezeBackend, pod v1alpha1.PodRef) (*unstructured.Unstructured, error) {
	current := &unstructured.Unstructured{}
	current.SetGroupVersionKind(Kind(backend))
	err := p.live.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: Name(pod.UID)}, current)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read policy %s/%s: %w", pod.Namespace, Name(pod.UID), err)
	}
	if !intact(current, pod) {
		return nil, nil
	}
	return current, nil
}

func (p *Policies) apply(ctx context.Context, backend v1alpha1.FreezeBackend, pod v1alpha1.PodRef) (v1alpha1.Ref, error) {
	policy := shape(backend, pod)
	err := p.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(policy), client.FieldOwner(FieldOwner), client.ForceOwnership)
	if err != nil {
		return v1alpha1.Ref{}, fmt.Errorf("apply %s %s/%s: %w", policy.GetKind(), pod.Namespace, policy.GetName(), err)
	}
	if !intact(policy, pod) {
		if err := p.replace(ctx, backend, policy); err != nil {
			return v1alpha1.Ref{}, err
		}
	}
	return v1alpha1.Ref{Name: policy.GetName(), UID: string(policy.GetUID())}, nil
}

// replace puts the whole spec back. An apply leaves alone what another manager added inside of it, such as one more
// condition of a selector, which lets the pod out.
func (p *Policies) replace(ctx context.Context, backend v1alpha1.FreezeBackend, policy *unstructured.Unstructured) error {
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec", "value": spec(backend)}})
	if err != nil {
		return fmt.Errorf("encode the spec of a policy: %w", err)
	}
	if err := p.client.Patch(ctx, policy, client.RawPatch(types.JSONPatchType, patch), client.FieldOwner(FieldOwner)); err != nil {
		return fmt.Errorf("replace the spec of %s %s/%s: %w", policy.GetKind(), policy.GetNamespace(), policy.GetName(), err)
	}
	return nil
}

// Remove deletes the pod's policies of both kinds: one can stand without a record, and the cluster's CNI may have changed
// since. One that is gone, or whose kind is gone, is success.
func (p *Policies) Remove(ctx context.Context, pod v1alpha1.PodRef) error {
	for _, backend := range []v1alpha1.FreezeBackend{v1alpha1.BackendCoreV1, v1alpha1.BackendCilium} {
		policy := &unstructured.Unstructured{}
		policy.SetGroupVersionKind(Kind(backend))
		name := client.ObjectKey{Namespace: pod.Namespace, Name: Name(pod.UID)}
		err := p.live.Get(ctx, name, policy)
		if err == nil {
			err = p.client.Delete(ctx, policy)
		}
		if err != nil && !isGone(err) {
			return fmt.Errorf("delete %s %s: %w", Kind(backend).Kind, name, err)
		}
	}
	return nil
}
