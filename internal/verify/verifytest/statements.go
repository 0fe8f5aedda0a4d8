package verifytest

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func (i *Incident) event(event *v1alpha1.SecurityEvent) {
	i.t.Helper()
	if i.change.Event != nil {
		i.change.Event(event)
	}
	spec, previous := i.canonical(event.Spec), ""
	if event.Spec.Class == v1alpha1.ClassForensic && len(i.listed) > 0 {
		previous = i.listed[len(i.listed)-1].PayloadSHA256
	}
	payload := i.statement(evidence.PredicateTypeSecurityEvent, evidence.SecurityEventPredicate{
		Event: evidence.Reference{Name: event.Name, UID: string(event.UID)}, CreatedAt: event.CreationTimestamp.UTC(), Spec: spec,
		Previous: previous, Attestor: evidence.Attestor{Account: Identity, At: i.begun},
	}, evidence.SHA256Subject(event.Name, evidence.Digest(spec)))
	key := i.Prefix + "/bundles/" + v1alpha1.BundleName(string(event.UID)) + ".sigstore.json"
	if event.Spec.Class != v1alpha1.ClassForensic {
		key = evidence.TriggerBundleKey(string(event.UID))
	}
	i.list(evidence.StatementSecurityEvent, &event.ObjectMeta, payload, key)
}

func (i *Incident) response(response, parent *v1alpha1.EventResponse) {
	i.t.Helper()
	predicate := evidence.EventResponsePredicate{}
	if parent != nil {
		response.Spec.ParentRef = &v1alpha1.Ref{Name: parent.Name, UID: string(parent.UID)}
		predicate.Previous = i.payloads[parent.UID]
	}
	if i.change.Response != nil {
		i.change.Response(response)
	}
	predicate.Response = evidence.Reference{Name: response.Name, UID: string(response.UID)}
	predicate.IncidentUID, predicate.Step = response.Spec.IncidentUID, response.Labels[v1alpha1.LabelStep]
	predicate.Spec, predicate.Outcome = i.canonical(response.Spec), i.canonical(response.Status)
	predicate.Artifacts = observed(artifacts(response))
	for _, attachment := range response.Status.Attachments() {
		read := segment(attachment)
		read.ObservedSHA256 = read.SHA256
		predicate.Attachments = append(predicate.Attachments, read)
	}
	if len(response.Status.StoredObjects()) > 0 {
		predicate.ReadBack = &evidence.ReadBack{By: readBack, Agrees: true, Message: "every version was read back"}
	}
	predicate.Attestor = evidence.Attestor{Account: Identity, At: i.begun}
	if i.change.Predicate != nil {
		i.change.Predicate(&predicate)
	}
	closed := i.canonical(map[string]json.RawMessage{"spec": predicate.Spec, "outcome": predicate.Outcome})
	subjects := []evidence.Subject{evidence.SHA256Subject(response.Name, evidence.Digest(closed))}
	for _, artifact := range predicate.Artifacts {
		subjects = append(subjects, evidence.SHA256Subject(artifact.Name, artifact.Asserted.SHA256))
	}
	payload := i.statement(evidence.PredicateTypeEventResponse, predicate, subjects...)
	i.payloads[response.UID] = evidence.Digest(payload)
	i.list(evidence.StatementEventResponse, &response.ObjectMeta, payload,
		i.Prefix+"/bundles/"+v1alpha1.BundleName(string(response.UID))+".sigstore.json")
}

func (i *Incident) list(kind evidence.StatementKind, object *metav1.ObjectMeta, payload []byte, key string) {
	i.listed = append(i.listed, evidence.CustodyStatement{
		Kind: kind, Subject: evidence.Reference{Name: object.Name, UID: string(object.UID)}, Step: object.Labels[v1alpha1.LabelStep],
		PayloadSHA256: evidence.Digest(payload), Bundle: i.seal(object.Name, payload, key),
		Countersignatures: i.countersign(object.Name, payload, key),
	})
}

// Mode of a signature.
func (s Signature) Mode() string {
	if s.Key {
		return evidence.ModeTransit
	}
	return evidence.ModeKeyless
}

// countersigner of the statement about an object, if there is one.
func (i *Incident) countersigner(name string) (by Signature, signs bool) {
	if i.change.Countersigner == nil {
		return Signature{}, false
	}
	by = i.change.Countersigner(name)
	return by, by.Key || by.Identity != ""
}

// countersign puts a further bundle beside the one under a key.
func (i *Incident) countersign(name string, payload []byte, key string) []evidence.Countersignature {
	i.t.Helper()
	by, signs := i.countersigner(name)
	if !signs {
		return nil
	}
	put := i.put(evidence.CountersignatureKey(key, by.Mode()), i.Authority.Seal(payload, by), i.lock)
	return []evidence.Countersignature{{Mode: by.Mode(), StoredVersion: listing(put)}}
}

func (i *Incident) seal(name string, payload []byte, key string) evidence.StoredVersion {
	by := Keyless()
	if i.change.Signer != nil {
		by = i.change.Signer(name)
	}
	return listing(i.put(key, i.Authority.Seal(payload, by), i.lock))
}

func (i *Incident) statement(kind string, predicate any, subjects ...evidence.Subject) []byte {
	return i.canonical(evidence.Statement{Type: evidence.StatementType, Subject: subjects, PredicateType: kind, Predicate: predicate})
}

func (i *Incident) canonical(value any) []byte {
	i.t.Helper()
	data, err := evidence.Canonical(value)
	must(i.t, err)
	return data
}

// artifacts of a response as its executor asserts them.
func artifacts(response *v1alpha1.EventResponse) []evidence.Artifact {
	var found []evidence.Artifact
	for _, artifact := range response.Status.Artifacts {
		out := evidence.Artifact{
			Name: artifact.Name, Kind: string(artifact.Kind), Container: artifact.Container, MediaType: artifact.MediaType, Size: artifact.Size,
			Entries: artifact.Entries, MerkleRoot: artifact.MerkleRoot, IndexLines: artifact.IndexLines,
			Asserted: evidence.Asserted{By: agent, Node: node, SHA256: artifact.SHA256}, FrozenThroughout: artifact.FrozenThroughout,
		}
		for _, object := range artifact.Segments {
			out.Segments = append(out.Segments, segment(object))
		}
		if artifact.Index != nil {
			index, timeline := segment(*artifact.Index), segment(*artifact.Timeline)
			out.Index, out.Timeline = &index, &timeline
		}
		found = append(found, out)
	}
	return found
}

func segment(object v1alpha1.StoredObject) evidence.Segment {
	return evidence.Segment{
		Index: object.Index, Key: object.Key, VersionID: object.VersionID, Size: object.Size, SHA256: object.SHA256, RetainUntil: object.RetainUntil.UTC(),
	}
}

// observed is what the read-back found, which is what was asserted.
func observed(artifacts []evidence.Artifact) []evidence.Artifact {
	for a := range artifacts {
		artifact := &artifacts[a]
		artifact.Observed = &evidence.Observed{By: readBack, SHA256: artifact.Asserted.SHA256}
		for s := range artifact.Segments {
			artifact.Segments[s].ObservedSHA256 = artifact.Segments[s].SHA256
		}
		for _, beside := range []*evidence.Segment{artifact.Index, artifact.Timeline} {
			if beside != nil {
				beside.ObservedSHA256 = beside.SHA256
			}
		}
	}
	return artifacts
}
