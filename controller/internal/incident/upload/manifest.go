package upload

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
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
			artifact := r.artifact(response, &response.Status.Artifacts[j], m.observed)
			out.Truncated = out.Truncated || artifact.Truncated
			out.Artifacts = append(out.Artifacts, artifact)
		}
	}
	out.Gaps = append(out.Gaps, readBackGaps(out.Artifacts, m.observed)...)
	slices.SortStableFunc(out.Artifacts, func(a, b evidence.Artifact) int { return cmp.Compare(a.Name, b.Name) })
	return evidence.Canonical(out)
}

func summary(response *v1alpha1.EventResponse) evidence.ResponseSummary {
	return evidence.ResponseSummary{
		Reference: evidence.Reference{Name: response.Name, UID: string(response.UID)},
		Step:      response.Labels[v1alpha1.LabelStep], Phase: string(response.Status.Phase),
		CompletedAt: response.Status.CompletedAt.UTC(),
	}
}

func (r *Reconciler) artifact(response *v1alpha1.EventResponse, artifact *v1alpha1.Artifact, observed *observation) evidence.Artifact {
	out := evidence.Artifact{
		Name: artifact.Name, Kind: string(artifact.Kind), Container: artifact.Container, MediaType: artifact.MediaType,
		Size: artifact.Size, Entries: artifact.Entries, MerkleRoot: artifact.MerkleRoot,
		Asserted:         evidence.Asserted{Node: response.Spec.NodeName, SHA256: artifact.SHA256},
		FrozenThroughout: artifact.FrozenThroughout, Truncated: artifact.Truncated,
	}
	if response.Status.Reporter != nil {
		out.Asserted.By = response.Status.Reporter.Account
	}
	var complete bool
	out.Segments, complete = observed.segments(artifact)
	if complete {
		out.Observed = &evidence.Observed{By: r.ReadBack}
		// One segment is the whole stream. The digest of several is observed segment by segment.
		if len(out.Segments) == 1 {
			out.Observed.SHA256 = out.Segments[0].ObservedSHA256
		}
	}
	return out
}

func readBackGaps(artifacts []evidence.Artifact, observed *observation) []evidence.Gap {
	if observed == nil {
		if len(artifacts) == 0 {
			return nil
		}
		return []evidence.Gap{{
			Reason: gapReadBackMissing, Count: int64(len(artifacts)),
			Message: "the digests stand on the word of the node alone: nobody had read the objects back within " + readBackWithin.String(),
		}}
	}
	if !observed.agrees {
		return []evidence.Gap{{Reason: gapReadBackMismatch, Message: observed.message, Count: 1}}
	}
	return nil
}
