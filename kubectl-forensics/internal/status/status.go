package status

import (
	"context"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// View is one incident as it stands.
type View struct {
	Incident   string                 `json:"incident"`
	UID        string                 `json:"uid"`
	State      v1alpha1.IncidentState `json:"state"`
	Pod        v1alpha1.PodRef        `json:"pod"`
	Trigger    v1alpha1.Ref           `json:"trigger"`
	Conditions []metav1.Condition     `json:"conditions"`
	Steps      []Step                 `json:"steps"`
	// UnfreezeAt is when the pod goes free by itself; absent where that is never, or not known yet.
	UnfreezeAt *time.Time `json:"unfreezeAt,omitempty"`
	// Manifest and Custody are URLs for verify and fetch.
	Manifest string   `json:"manifest,omitempty"`
	Custody  []string `json:"custody,omitempty"`
}

// Step is one response.
type Step struct {
	Name        string                 `json:"name"`
	Step        string                 `json:"step"`
	Phase       v1alpha1.ResponsePhase `json:"phase"`
	StartedAt   *time.Time             `json:"startedAt,omitempty"`
	CompletedAt *time.Time             `json:"completedAt,omitempty"`
	Progress    *v1alpha1.Progress     `json:"progress,omitempty"`
	Artifacts   int                    `json:"artifacts"`
	Gaps        int64                  `json:"gaps"`
	// Bundle is how far the statement about it is; empty where there is none yet.
	Bundle v1alpha1.BundlePhase `json:"bundle,omitempty"`
}

// Find returns the incident of this name, or every incident of the pods of this name, the oldest first. An empty
// namespace is every one.
func Find(ctx context.Context, reader client.Reader, name, namespace string) ([]View, error) {
	var incidents v1alpha1.IncidentList
	if err := reader.List(ctx, &incidents); err != nil {
		return nil, fmt.Errorf("list incidents: %w", err)
	}
	slices.SortFunc(incidents.Items, func(a, b v1alpha1.Incident) int {
		return a.CreationTimestamp.Compare(b.CreationTimestamp.Time)
	})
	var views []View
	for i := range incidents.Items {
		incident := &incidents.Items[i]
		ofPod := incident.Spec.Pod.Name == name && (namespace == "" || incident.Spec.Pod.Namespace == namespace)
		if incident.Name != name && !ofPod {
			continue
		}
		view, err := look(ctx, reader, incident)
		if err != nil {
			return nil, err
		}
		views = append(views, view)
	}
	return views, nil
}

func look(ctx context.Context, reader client.Reader, incident *v1alpha1.Incident) (View, error) {
	view := View{
		Incident: incident.Name, UID: string(incident.UID), State: incident.Status.State, Pod: incident.Spec.Pod,
		Trigger: incident.Spec.Trigger.Ref, Conditions: incident.Status.Conditions,
	}
	if at := incident.Status.UnfreezeAt; at != nil {
		view.UnfreezeAt = &at.Time
	}
	bucket := "s3://" + incident.Spec.Snapshot.Destination.Bucket + "/"
	if manifest := incident.Status.Manifest; manifest != nil {
		view.Manifest = bucket + manifest.Key
	}
	for _, record := range incident.Status.Custody {
		view.Custody = append(view.Custody, bucket+record.Key)
	}
	var err error
	view.Steps, err = steps(ctx, reader, string(incident.UID))
	return view, err
}

func steps(ctx context.Context, reader client.Reader, incidentUID string) ([]Step, error) {
	ours := client.MatchingLabels{v1alpha1.LabelIncidentUID: incidentUID}
	var responses v1alpha1.EventResponseList
	if err := reader.List(ctx, &responses, ours); err != nil {
		return nil, fmt.Errorf("list responses: %w", err)
	}
	var bundles v1alpha1.AttestationBundleList
	if err := reader.List(ctx, &bundles, ours); err != nil {
		return nil, fmt.Errorf("list bundles: %w", err)
	}
	sealed := map[string]v1alpha1.BundlePhase{}
	for i := range bundles.Items {
		if bundles.Items[i].Spec.Countersigns == nil { // the first bundle is sealed when all are
			sealed[bundles.Items[i].Spec.AttestedFor.UID] = bundles.Items[i].Status.Phase
		}
	}
	slices.SortFunc(responses.Items, func(a, b v1alpha1.EventResponse) int {
		return rank(&a) - rank(&b)
	})
	var found []Step
	for i := range responses.Items {
		response := &responses.Items[i]
		step := Step{
			Name: response.Name, Step: response.Labels[v1alpha1.LabelStep], Phase: response.Status.Phase, Progress: response.Status.Progress,
			Artifacts: len(response.Status.Artifacts), Bundle: sealed[string(response.UID)],
			StartedAt: timeOf(response.Status.StartedAt), CompletedAt: timeOf(response.Status.CompletedAt),
		}
		for _, gap := range response.Status.Gaps {
			step.Gaps += gap.Count
		}
		found = append(found, step)
	}
	return found, nil
}

// maxAttempts is above the attempts that a step can have.
const maxAttempts = 1000

// rank orders responses as they follow one another.
func rank(response *v1alpha1.EventResponse) int {
	order := []v1alpha1.Step{v1alpha1.StepFreeze, v1alpha1.StepSnapshot, v1alpha1.StepUpload, v1alpha1.StepUnfreeze}
	return slices.Index(order, v1alpha1.Step(response.Labels[v1alpha1.LabelStep]))*maxAttempts + int(response.Spec.Attempt)
}

func timeOf(at *metav1.MicroTime) *time.Time {
	if at == nil {
		return nil
	}
	return &at.Time
}
