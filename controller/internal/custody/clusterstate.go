package custody

import (
	"slices"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// addClusterState lists the cluster state where the controller's own response does not name it: a capture that failed has no
// manifest to name it, nor that it is missing. What the node's agent claims to be the cluster state does not count.
func (m *Material) addClusterState(record *evidence.Custody) {
	if m.Incident.Spec.DryRun || m.stores(v1alpha1.ArtifactClusterState) {
		return
	}
	state := m.Incident.Status.ClusterState
	if state != nil && state.Object != nil {
		Add(record, evidence.CustodyObject{StoredVersion: version(state.Object), Role: evidence.RoleClusterState})
		return
	}
	if m.stores(v1alpha1.ArtifactManifest) {
		return
	}
	message := "the pod's objects of the API server were not stored"
	if state != nil && state.Message != "" {
		message += ": " + state.Message
	}
	record.Gaps = append(record.Gaps, evidence.Gap{Reason: evidence.GapClusterStateMissing, Message: message, Count: 1})
}

// stores is whether a response that the controller carried out names an artifact of this kind.
func (m *Material) stores(kind v1alpha1.ArtifactKind) bool {
	return slices.ContainsFunc(m.Responses, func(response v1alpha1.EventResponse) bool {
		return response.Spec.Action.Type.Step() == v1alpha1.StepUpload &&
			slices.ContainsFunc(response.Status.Artifacts, func(artifact v1alpha1.Artifact) bool { return artifact.Kind == kind })
	})
}
