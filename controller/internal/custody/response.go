package custody

import (
	"fmt"
	"slices"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// responses that the incident names, those that released the pod or all others, each after its parent.
func (m *Material) responses(releasing bool) ([]*v1alpha1.EventResponse, error) {
	var found []*v1alpha1.EventResponse
	for _, ref := range m.Incident.Status.Responses {
		at := slices.IndexFunc(m.Responses, func(r v1alpha1.EventResponse) bool { return r.Name == ref.Name && string(r.UID) == ref.UID })
		if at < 0 {
			return nil, fmt.Errorf("response %s with uid %s is %w", ref.Name, ref.UID, ErrMissing)
		}
		response := &m.Responses[at]
		if (response.Spec.Action.Type.Step() == v1alpha1.StepUnfreeze) != releasing {
			continue
		}
		if parent := response.Spec.ParentRef; parent != nil && !m.names(parent.UID) {
			return nil, fmt.Errorf("response %s, the parent of %s, is %w", parent.Name, ref.Name, ErrMissing)
		}
		if response.Status.CompletedAt == nil {
			return nil, fmt.Errorf("the statement about %s is %w: the response is not complete", ref.Name, ErrUnsealed)
		}
		found = append(found, response)
	}
	return parentsFirst(found)
}

// names is whether the incident names a response with this uid.
func (m *Material) names(uid string) bool {
	return slices.ContainsFunc(m.Incident.Status.Responses, func(ref v1alpha1.Ref) bool { return ref.UID == uid })
}

// parentsFirst orders responses. The parent of the first may be in another record.
func parentsFirst(responses []*v1alpha1.EventResponse) ([]*v1alpha1.EventResponse, error) {
	uids := map[string]bool{}
	for _, response := range responses {
		uids[string(response.UID)] = true
	}
	ordered := make([]*v1alpha1.EventResponse, 0, len(responses))
	for len(responses) > 0 {
		next := slices.IndexFunc(responses, func(r *v1alpha1.EventResponse) bool {
			return r.Spec.ParentRef == nil || !uids[r.Spec.ParentRef.UID]
		})
		if next < 0 {
			return nil, fmt.Errorf("response %s follows from itself", responses[0].Name)
		}
		ordered = append(ordered, responses[next])
		delete(uids, string(responses[next].UID))
		responses = slices.Delete(slices.Clone(responses), next, next+1)
	}
	return ordered, nil
}

// stored lists every version that a response names. A manifest is the controller's: what the node's agent calls one is a
// segment like any other.
func stored(response *v1alpha1.EventResponse) []evidence.CustodyObject {
	var objects []evidence.CustodyObject
	add := func(object *v1alpha1.StoredObject, role evidence.ObjectRole, artifact string) {
		if object != nil {
			objects = append(objects, evidence.CustodyObject{StoredVersion: version(object), Role: role, Artifact: artifact})
		}
	}
	for i := range response.Status.Artifacts {
		artifact := &response.Status.Artifacts[i]
		role, name := evidence.RoleSegment, artifact.Name
		if artifact.Kind == v1alpha1.ArtifactManifest && response.Spec.Action.Type.Step() == v1alpha1.StepUpload {
			role, name = evidence.RoleManifest, ""
		}
		for s := range artifact.Segments {
			add(&artifact.Segments[s], role, name)
		}
		add(artifact.Index, evidence.RoleIndex, artifact.Name)
		add(artifact.Timeline, evidence.RoleTimeline, artifact.Name)
	}
	attachments := response.Status.Attachments()
	for i := range attachments {
		add(&attachments[i], evidence.RoleAttachment, "")
	}
	return objects
}
