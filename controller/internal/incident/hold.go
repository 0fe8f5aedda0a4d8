package incident

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"ugallu.io/forensics/api/v1alpha1"
)

// errStale says that the walk began with a record that is not the newest: it begins again.
var errStale = errors.New("the cache shows an older record of the incident")

// hold keeps the label and the network policy on a pod.
type hold struct {
	client   client.Client
	live     client.Reader
	policies Policies
}

// keep makes both stand, whatever happened to them, and says whether the pod is still there. The label names the oldest
// incident that holds the pod.
func (h *hold) keep(ctx context.Context, s *scene) (present bool, err error) {
	holders, err := h.holders(ctx, h.client, s.incident.Spec.Pod.UID)
	if err != nil {
		return false, err
	}
	owner := string(s.incident.UID)
	if len(holders) > 0 {
		owner = string(holders[0].UID)
	}
	pod, err := h.pod(ctx, s.incident, owner)
	if err != nil || pod == nil {
		return false, err
	}
	if pod.Labels[v1alpha1.LabelFrozen] != owner {
		// The pod may have been let go since the record, but not before the first of all walks ended.
		if len(s.incident.Status.Conditions) > 0 {
			if err := h.newest(ctx, s); err != nil {
				return true, err
			}
		}
		if err := h.label(ctx, s.incident.Spec.Pod, owner); err != nil {
			return true, client.IgnoreNotFound(err)
		}
	}
	applied, err := h.policies.Ensure(ctx, s.incident.Spec.Pod, pod.Labels, s.incident.Status.Policy, func() error {
		return h.upToDate(ctx, s)
	})
	if err != nil {
		return true, err
	}
	s.incident.Status.Policy = applied
	return true, nil
}

// newest returns errStale when the record that the walk began with is not the newest.
func (h *hold) newest(ctx context.Context, s *scene) error {
	var newest v1alpha1.Incident
	err := h.live.Get(ctx, client.ObjectKeyFromObject(s.incident), &newest)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("incident %s is gone: %w", s.incident.Name, errStale)
	case err != nil:
		return fmt.Errorf("read the newest record of incident %s: %w", s.incident.Name, err)
	case newest.UID != s.incident.UID || newest.ResourceVersion != s.recorded.ResourceVersion:
		return errStale
	}
	return nil
}

// upToDate is newest for a repair of the policy: it would be counted on top of an older count and refused, and the next walk
// would find the policy in place and nothing to count. Where the newest cannot be read the repair is worth more than its count.
func (h *hold) upToDate(ctx context.Context, s *scene) error {
	err := h.newest(ctx, s)
	if err != nil && !errors.Is(err, errStale) {
		log.FromContext(ctx).Error(err, "the policy is applied again all the same; it may be counted once too few")
		return nil
	}
	return err
}

// holders lists the open incidents on a pod, the oldest first.
func (h *hold) holders(ctx context.Context, reader client.Reader, podUID string) ([]v1alpha1.Incident, error) {
	var list v1alpha1.IncidentList
	err := reader.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelOpen: "true", v1alpha1.LabelPodUID: podUID})
	if err != nil {
		return nil, fmt.Errorf("list incidents on pod %s: %w", podUID, err)
	}
	open := slices.DeleteFunc(list.Items, func(incident v1alpha1.Incident) bool {
		return incident.Spec.DryRun || meta.IsStatusConditionTrue(incident.Status.Conditions, v1alpha1.ConditionReleased)
	})
	slices.SortFunc(open, func(a, b v1alpha1.Incident) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return open, nil
}

// doomed says whether an incident of the pod, open or released, is to delete it, or an order to let it go says so: one that
// is released can be deleted, but its order stays, and the agent keeps the pod frozen by that.
func (h *hold) doomed(ctx context.Context, pod v1alpha1.PodRef) (bool, error) {
	var list v1alpha1.IncidentList
	if err := h.live.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelPodUID: pod.UID}); err != nil {
		return false, fmt.Errorf("list every incident on pod %s: %w", pod.UID, err)
	}
	if slices.ContainsFunc(list.Items, func(incident v1alpha1.Incident) bool {
		return !incident.Spec.DryRun && incident.Spec.Disposition == v1alpha1.DispositionDelete
	}) {
		return true, nil
	}
	var releases v1alpha1.EventResponseList
	err := h.live.List(ctx, &releases, client.MatchingLabels{v1alpha1.LabelPodUID: pod.UID, v1alpha1.LabelStep: string(v1alpha1.StepUnfreeze)})
	if err != nil {
		return false, fmt.Errorf("list every release of pod %s: %w", pod.UID, err)
	}
	return slices.ContainsFunc(releases.Items, func(release v1alpha1.EventResponse) bool {
		return release.Spec.PodRef.UID == pod.UID && ordersDeletion(&release)
	}), nil
}

// ordersDeletion says whether the pod is to be deleted by an order to let it go.
func ordersDeletion(response *v1alpha1.EventResponse) bool {
	action := response.Spec.Action.PodUnfreeze
	return action != nil && action.Disposition == v1alpha1.DispositionDelete
}

// pod reads the pod's metadata, from the cache of frozen pods when that shows the label as it should be and the incident has
// its policy: the first one is recorded with those that select the pod by labels that are not cached. It is nil when the pod
// is gone, or another one has its name.
func (h *hold) pod(ctx context.Context, incident *v1alpha1.Incident, owner string) (*metav1.PartialObjectMetadata, error) {
	pod, ref := podMetadata(), incident.Spec.Pod
	name := client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}
	err := h.client.Get(ctx, name, pod)
	if err == nil && string(pod.UID) == ref.UID && pod.Labels[v1alpha1.LabelFrozen] == owner && incident.Status.Policy != nil {
		return pod, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read pod %s: %w", name, err)
	}
	pod = podMetadata()
	err = h.live.Get(ctx, name, pod)
	if apierrors.IsNotFound(err) || (err == nil && string(pod.UID) != ref.UID) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pod %s: %w", name, err)
	}
	return pod, nil
}

func podMetadata() *metav1.PartialObjectMetadata {
	pod := &metav1.PartialObjectMetadata{}
	pod.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	return pod
}

// label sets the label to an incident's uid, or removes it when that is empty. The pod's uid in the patch makes the API
// server refuse it when another pod has the name by now.
func (h *hold) label(ctx context.Context, ref v1alpha1.PodRef, incidentUID string) error {
	var value any
	if incidentUID != "" {
		value = incidentUID
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": ref.UID, "labels": map[string]any{v1alpha1.LabelFrozen: value},
	}})
	if err != nil {
		return fmt.Errorf("marshal label patch: %w", err)
	}
	pod := podMetadata()
	pod.SetNamespace(ref.Namespace)
	pod.SetName(ref.Name)
	if err := h.client.Patch(ctx, pod, client.RawPatch(types.MergePatchType, patch), client.FieldOwner(fieldOwner)); err != nil {
		return fmt.Errorf("label pod %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	return nil
}
