package attestor

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func storedObject(key string, plain *v1alpha1.PlainContent) v1alpha1.StoredObject {
	return v1alpha1.StoredObject{
		Key: key, VersionID: "1", SHA256: evidence.Digest([]byte(key)), Size: 3, Plain: plain,
		RetainUntil: metav1.NewTime(time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
}

// archived is a closed capture of one archive with its index and timeline, and the bundle of it with a verdict.
func archived(verdict metav1.Condition, plain *v1alpha1.PlainContent) (*v1alpha1.EventResponse, *v1alpha1.AttestationBundle) {
	now := metav1.NowMicro()
	index, timeline := storedObject("index", plain), storedObject("timeline", plain)
	response := &v1alpha1.EventResponse{ObjectMeta: metav1.ObjectMeta{Name: "er", UID: "1"}}
	response.Status.CompletedAt = &now
	response.Status.Reporter = &v1alpha1.Reporter{Account: "agent", NodeName: "worker"}
	response.Status.Artifacts = []v1alpha1.Artifact{{
		Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem, Size: 3, SHA256: evidence.Digest([]byte("stream")),
		MerkleRoot: evidence.Digest(nil), IndexLines: 7, Index: &index, Timeline: &timeline,
		Segments: []v1alpha1.StoredObject{storedObject("segment", plain)},
	}}
	verdict.Type = v1alpha1.ConditionReadBack
	bundle := &v1alpha1.AttestationBundle{}
	bundle.Status.Conditions = []metav1.Condition{verdict}
	for _, object := range response.Status.StoredObjects() {
		bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
			Key: object.Key, VersionID: object.VersionID, SHA256: object.SHA256, Size: object.Size,
		})
	}
	return response, bundle
}

func predicateOf(t *testing.T, response *v1alpha1.EventResponse, bundle *v1alpha1.AttestationBundle) evidence.EventResponsePredicate {
	t.Helper()
	statement, err := responseStatement(response, bundle, "", evidence.Attestor{})
	if err != nil {
		t.Fatal(err)
	}
	predicate, ok := statement.Predicate.(evidence.EventResponsePredicate)
	if !ok {
		t.Fatalf("predicate is %T", statement.Predicate)
	}
	return predicate
}

func TestStatementNamesIndexAndTimelineWithWhatWasObserved(t *testing.T) {
	agrees := metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "m"}
	response, bundle := archived(agrees, nil)
	predicate := predicateOf(t, response, bundle)
	got := predicate.Artifacts[0]
	for _, segment := range append(got.Segments, *got.Index, *got.Timeline) {
		if segment.ObservedSHA256 != evidence.Digest([]byte(segment.Key)) || segment.Plain != nil {
			t.Errorf("%s: %+v", segment.Key, segment)
		}
	}
	if got.IndexLines != 7 || got.Observed.SHA256 != evidence.Digest([]byte("stream")) {
		t.Errorf("artifact %+v, observed %+v", got, got.Observed)
	}
	want := &evidence.ReadBack{By: readBackAccount, Agrees: true, Message: "m"}
	if diff := cmp.Diff(want, predicate.ReadBack); diff != "" {
		t.Error(diff)
	}
}

func TestStatementLeavesThePlainStreamToItsAuthor(t *testing.T) {
	agrees := metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded}
	plain := &v1alpha1.PlainContent{Size: 2, SHA256: evidence.Digest([]byte("plain"))}
	response, bundle := archived(agrees, plain)
	got := predicateOf(t, response, bundle).Artifacts[0]
	want := &evidence.PlainContent{Size: 2, SHA256: evidence.Digest([]byte("plain"))}
	for _, segment := range append(got.Segments, *got.Index, *got.Timeline) {
		if diff := cmp.Diff(want, segment.Plain); diff != "" {
			t.Errorf("%s: %s", segment.Key, diff)
		}
	}
	if diff := cmp.Diff(&evidence.Observed{By: readBackAccount}, got.Observed); diff != "" {
		t.Error(diff)
	}
}

func TestStepIsWhatWasOrderedWhateverTheLabelSays(t *testing.T) {
	response, bundle := archived(metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded}, nil)
	response.Labels = map[string]string{v1alpha1.LabelStep: string(v1alpha1.StepUnfreeze)}
	response.Spec.Action.Type = v1alpha1.ActionFilesystemSnapshot
	if step := predicateOf(t, response, bundle).Step; step != string(v1alpha1.StepSnapshot) {
		t.Errorf("step %s", step)
	}
}

func TestStatementWithoutStoredObjectsHasNoReadBack(t *testing.T) {
	response, bundle := archived(metav1.Condition{Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonNothingStored}, nil)
	response.Status.Artifacts = nil
	if predicate := predicateOf(t, response, bundle); predicate.ReadBack != nil || len(predicate.Artifacts) > 0 {
		t.Errorf("read-back %+v, artifacts %+v", predicate.ReadBack, predicate.Artifacts)
	}
}
