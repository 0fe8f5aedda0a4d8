package artifact_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/artifact"
)

const reader = "system:serviceaccount:ugallu-system-privileged:ugallu-forensics-snapshot"

var until = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

func object(index int32, key string) v1alpha1.StoredObject {
	return v1alpha1.StoredObject{
		Index: index, Key: key, VersionID: "v-" + key, SHA256: evidence.Digest([]byte(key)), Size: 10, RetainUntil: metav1.NewTime(until),
	}
}

// archive has a value in each field.
func archive() *v1alpha1.Artifact {
	index, timeline := object(0, "index"), object(0, "timeline")
	return &v1alpha1.Artifact{
		Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Container: "web", MediaType: evidence.MediaTypeTarZstd,
		Segments: []v1alpha1.StoredObject{object(0, "0"), object(1, "1")}, Size: 20, SHA256: evidence.Digest([]byte("stream")),
		MerkleRoot: evidence.Digest([]byte("root")), Entries: 3, IndexLines: 4, Index: &index, Timeline: &timeline,
		FrozenThroughout: true, Truncated: true,
	}
}

// seen is a read-back of these objects, which found them as asserted or otherwise.
func seen(agrees bool, objects ...v1alpha1.StoredObject) *artifact.Observed {
	bundle := &v1alpha1.AttestationBundle{}
	verdict := metav1.Condition{Type: v1alpha1.ConditionReadBack, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded}
	if !agrees {
		verdict.Status, verdict.Reason = metav1.ConditionFalse, v1alpha1.ReasonDigestMismatch
	}
	bundle.Status.Conditions = []metav1.Condition{verdict}
	for _, o := range objects {
		bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
			Key: o.Key, VersionID: o.VersionID, SHA256: evidence.Digest([]byte("observed " + o.Key)),
		})
	}
	return artifact.NewObserved(bundle, reader)
}

func all(a *v1alpha1.Artifact) []v1alpha1.StoredObject { return append(a.Companions(), a.Segments...) }

func segment(o v1alpha1.StoredObject, observed string) evidence.Segment {
	out := evidence.Segment{
		Index: o.Index, Key: o.Key, VersionID: o.VersionID, Size: o.Size, SHA256: o.SHA256, ObservedSHA256: observed, RetainUntil: until,
	}
	if o.Plain != nil {
		out.Plain = &evidence.PlainContent{Size: o.Plain.Size, SHA256: o.Plain.SHA256}
	}
	return out
}

func TestEvidenceHasEveryFieldAndBothAccounts(t *testing.T) {
	a := archive()
	a.Segments[1].Plain = &v1alpha1.PlainContent{Size: 9, SHA256: evidence.Digest([]byte("plain"))}
	digest := func(key string) string { return evidence.Digest([]byte("observed " + key)) }
	index, timeline := segment(*a.Index, digest("index")), segment(*a.Timeline, digest("timeline"))
	want := evidence.Artifact{
		Name: a.Name, Kind: "RootFilesystem", Container: "web", MediaType: a.MediaType, Size: 20, Entries: 3, MerkleRoot: a.MerkleRoot,
		IndexLines: 4, Index: &index, Timeline: &timeline,
		Asserted: evidence.Asserted{By: "agent", Node: "worker", SHA256: a.SHA256}, Observed: &evidence.Observed{By: reader},
		Segments:         []evidence.Segment{segment(a.Segments[0], digest("0")), segment(a.Segments[1], digest("1"))},
		FrozenThroughout: true, Truncated: true,
	}
	got := artifact.Evidence(a, evidence.Asserted{By: "agent", Node: "worker"}, seen(true, all(a)...))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	value := reflect.ValueOf(got)
	for i := range value.NumField() {
		if value.Field(i).IsZero() {
			t.Errorf("field %s is empty: the test does not cover it", value.Type().Field(i).Name)
		}
	}
}

func TestObservedOfTheWholeIsWhatWasComparedOrRead(t *testing.T) {
	several, single := archive(), archive()
	single.Segments = single.Segments[:1]
	encrypted := archive()
	encrypted.Segments = encrypted.Segments[:1]
	encrypted.Segments[0].Plain = &v1alpha1.PlainContent{Size: 20, SHA256: encrypted.SHA256}
	tests := map[string]struct {
		artifact *v1alpha1.Artifact
		seen     *artifact.Observed
		want     *evidence.Observed
	}{
		"nobody read":                {several, nil, nil},
		"agreement":                  {several, seen(true, all(several)...), &evidence.Observed{By: reader, SHA256: several.SHA256}},
		"disagreement":               {several, seen(false, all(several)...), &evidence.Observed{By: reader}},
		"disagreement on one object": {single, seen(false, all(single)...), &evidence.Observed{By: reader, SHA256: evidence.Digest([]byte("observed 0"))}},
		"a segment is missing":       {several, seen(false, all(several)[:3]...), nil},
		"the timeline is missing":    {several, seen(false, append(several.Segments, *several.Index)...), nil},
		"encrypted":                  {encrypted, seen(true, all(encrypted)...), &evidence.Observed{By: reader}},
		"encrypted, disagreement":    {encrypted, seen(false, all(encrypted)...), &evidence.Observed{By: reader}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, artifact.Evidence(tt.artifact, evidence.Asserted{}, tt.seen).Observed); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadBackThatHasNotEndedIsNone(t *testing.T) {
	bundle := &v1alpha1.AttestationBundle{}
	if artifact.NewObserved(bundle, reader) != nil {
		t.Error("a bundle without a verdict has one")
	}
	bundle.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReadBack, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonStoreUnreachable,
	}}
	if artifact.NewObserved(bundle, reader) != nil {
		t.Error("a store that does not answer gave a verdict")
	}
}
