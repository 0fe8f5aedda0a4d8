package upload

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/artifact"
)

// Reasons of gaps that the manifest itself adds.
const (
	gapReadBackMissing  = "ReadBackMissing"
	gapReadBackMismatch = "ReadBackMismatch"
)

// manifest builds the canonical bytes. It depends on nothing but closed responses and what was observed of them.
func (r *Reconciler) manifest(order *v1alpha1.EventResponse, m material) ([]byte, error) {
	spec := order.Spec
	out := evidence.Manifest{
		Version:     evidence.ManifestVersion,
		Incident:    evidence.Reference{Name: spec.IncidentName, UID: spec.IncidentUID},
		Trigger:     evidence.Reference{Name: spec.SecurityEventRef.Name, UID: spec.SecurityEventRef.UID},
		Pod:         evidence.Pod{Namespace: spec.PodRef.Namespace, Name: spec.PodRef.Name, UID: spec.PodRef.UID, Node: spec.PodRef.NodeName},
		RetainUntil: spec.Action.EvidenceUpload.Destination.RetainUntil.UTC(),
		Artifacts:   []evidence.Artifact{},
		Gaps:        []evidence.Gap{},
	}
	for i := range m.responses {
		response := &m.responses[i]
		out.Responses = append(out.Responses, summary(response))
		for _, gap := range response.Status.Gaps {
			out.Gaps = append(out.Gaps, evidence.Gap{Reason: gap.Reason, Message: gap.Message, Count: gap.Count})
		}
		if response.Spec.Action.Type == v1alpha1.ActionPodFreeze && response.Status.Containment != nil {
			raw, err := json.Marshal(response.Status.Containment)
			if err != nil {
				return nil, fmt.Errorf("marshal containment of %s: %w", response.Name, err)
			}
			out.Containment = raw
		}
		for j := range response.Status.Artifacts {
			described := artifact.Evidence(&response.Status.Artifacts[j], asserted(response), m.observed)
			out.Truncated = out.Truncated || described.Truncated
			out.Artifacts = append(out.Artifacts, described)
		}
	}
	out.Gaps = append(out.Gaps, readBackGaps(out.Artifacts, m.observed)...)
	if err := r.describeCluster(&out, m.cluster); err != nil {
		return nil, err
	}
	slices.SortStableFunc(out.Artifacts, func(a, b evidence.Artifact) int { return cmp.Compare(a.Name, b.Name) })
	return evidence.Canonical(out)
}

func summary(response *v1alpha1.EventResponse) evidence.ResponseSummary {
	return evidence.ResponseSummary{
		Reference: evidence.Reference{Name: response.Name, UID: string(response.UID)},
		Step:      string(response.Spec.Action.Type.Step()), Phase: string(response.Status.Phase),
		CompletedAt: response.Status.CompletedAt.UTC(),
	}
}

func asserted(response *v1alpha1.EventResponse) evidence.Asserted {
	by := evidence.Asserted{Node: response.Spec.NodeName}
	if response.Status.Reporter != nil {
		by.By = response.Status.Reporter.Account
	}
	return by
}

// describeCluster adds what the controller itself read of the API server, on its own word: the order that is being
// executed names the artifact, so that it is read back after the manifest is stored. The controller's node is left out,
// as it may be another one at the next try.
func (r *Reconciler) describeCluster(out *evidence.Manifest, cluster *v1alpha1.ClusterState) error {
	for _, gap := range clusterGaps(cluster) {
		out.Gaps = append(out.Gaps, evidence.Gap{Reason: gap.Reason, Message: gap.Message, Count: gap.Count})
	}
	state := clusterArtifact(cluster)
	if state == nil {
		return nil
	}
	reporter, err := r.Reporter()
	if err != nil {
		return fmt.Errorf("read own account: %w", err)
	}
	out.Artifacts = append(out.Artifacts, artifact.Evidence(state, evidence.Asserted{By: reporter.Account}, nil))
	if cluster.TakenAt != nil {
		at := cluster.TakenAt.UTC()
		out.ClusterStateAt = &at
	}
	return nil
}

func readBackGaps(artifacts []evidence.Artifact, observed *artifact.Observed) []evidence.Gap {
	if observed == nil {
		if len(artifacts) == 0 {
			return nil
		}
		return []evidence.Gap{{
			Reason: gapReadBackMissing, Count: int64(len(artifacts)),
			Message: "the digests stand on the word of the node alone: nobody had read the objects back within " + settledWithin.String(),
		}}
	}
	if !observed.Agrees {
		return []evidence.Gap{{Reason: gapReadBackMismatch, Message: observed.Message, Count: 1}}
	}
	return nil
}
