package readback

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// world is a capture of one artifact in two segments and a list of gaps, and the bundle that is to attest it.
type world struct {
	t        *testing.T
	store    *worm.Memory
	response *v1alpha1.EventResponse
	client   client.Client
	r        *Reconciler
}

func newWorld(t *testing.T, change func(*v1alpha1.EventResponse)) *world {
	t.Helper()
	w := &world{t: t, store: worm.NewMemory()}
	now := metav1.NowMicro()
	first, second, gaps := w.put("artifacts/web/rootfs.tar.zst/0", "one"), w.put("artifacts/web/rootfs.tar.zst/1", "two"), w.put("artifacts/gaps", "none")
	second.Index = 1
	w.response = &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{Name: "er-snapshot", UID: "response-uid"},
		Spec: v1alpha1.EventResponseSpec{Action: v1alpha1.Action{
			Type: v1alpha1.ActionFilesystemSnapshot,
			FilesystemSnapshot: &v1alpha1.FilesystemSnapshotAction{
				Destination: v1alpha1.Destination{
					Bucket: "evidence", Prefix: "artifacts", LockMode: v1alpha1.LockCompliance,
					RetainUntil: metav1.NewTime(time.Now().Add(30 * time.Minute)),
				},
			},
		}},
		Status: v1alpha1.EventResponseStatus{
			CompletedAt: &now, GapsObject: &gaps,
			Artifacts: []v1alpha1.Artifact{{
				Name: "web/rootfs.tar.zst", Size: 6, SHA256: evidence.Digest([]byte("onetwo")),
				// The order of the list is not the order of the stream.
				Segments: []v1alpha1.StoredObject{second, first},
			}},
		},
	}
	change(w.response)
	bundle := &v1alpha1.AttestationBundle{ObjectMeta: metav1.ObjectMeta{Name: "ab-snapshot"}}
	bundle.Spec.AttestedFor.Kind = v1alpha1.AttestedEventResponse
	bundle.Spec.AttestedFor.Ref = v1alpha1.Ref{Name: w.response.Name, UID: string(w.response.UID)}
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(w.response, bundle).
		WithStatusSubresource(&v1alpha1.AttestationBundle{}).Build()
	w.r = &Reconciler{
		Client: w.client, Live: w.client, Clock: clock.RealClock{},
		Store: func(context.Context, string) (worm.Reader, error) { return w.store, nil },
	}
	return w
}

func (w *world) put(key, content string) v1alpha1.StoredObject {
	w.t.Helper()
	object, err := w.store.Put(w.t.Context(), key, bytes.NewReader([]byte(content)),
		worm.Lock{Mode: "COMPLIANCE", RetainUntil: time.Now().Add(time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
	return v1alpha1.StoredObject{
		Key: object.Key, VersionID: object.VersionID, SHA256: object.SHA256, Size: object.Size, RetainUntil: metav1.NewTime(object.Lock.RetainUntil),
	}
}

func (w *world) reconcile() (*v1alpha1.AttestationBundle, *metav1.Condition, error) {
	w.t.Helper()
	_, err := w.r.Reconcile(w.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "ab-snapshot"}})
	var bundle v1alpha1.AttestationBundle
	if err := w.client.Get(w.t.Context(), client.ObjectKey{Name: "ab-snapshot"}, &bundle); err != nil {
		w.t.Fatal(err)
	}
	return &bundle, meta.FindStatusCondition(bundle.Status.Conditions, v1alpha1.ConditionReadBack), err
}

func TestWhatTheStoreHoldsIsObserved(t *testing.T) {
	w := newWorld(t, func(*v1alpha1.EventResponse) {})
	bundle, verdict, err := w.reconcile()
	if err != nil || verdict == nil || verdict.Status != metav1.ConditionTrue {
		t.Fatalf("verdict %+v (%v)", verdict, err)
	}
	if len(bundle.Status.Observed) != 3 {
		t.Fatalf("observed %+v", bundle.Status.Observed)
	}
	for _, object := range bundle.Status.Observed {
		if object.SHA256 == "" || object.LockMode != v1alpha1.LockCompliance || object.RetainUntil.IsZero() {
			t.Errorf("observed %+v", object)
		}
	}
}

// TestACountersignatureIsNotReadBack: the first bundle of the statement was.
func TestACountersignatureIsNotReadBack(t *testing.T) {
	w := newWorld(t, func(*v1alpha1.EventResponse) {})
	second := &v1alpha1.AttestationBundle{ObjectMeta: metav1.ObjectMeta{Name: "ab-second"}}
	second.Spec.AttestedFor.Kind = v1alpha1.AttestedEventResponse
	second.Spec.AttestedFor.Ref = v1alpha1.Ref{Name: w.response.Name, UID: string(w.response.UID)}
	second.Spec.Countersigns = &v1alpha1.Countersigned{Name: "ab-snapshot", Mode: v1alpha1.SigningFulcioKeyless}
	if err := w.client.Create(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	key := client.ObjectKeyFromObject(second)
	if _, err := w.r.Reconcile(t.Context(), ctrl.Request{NamespacedName: key}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Get(t.Context(), key, second); err != nil || len(second.Status.Conditions)+len(second.Status.Observed) > 0 {
		t.Errorf("status %+v (%v)", second.Status, err)
	}
}

func TestEveryDisagreementIsNamed(t *testing.T) {
	tests := map[string]struct {
		change func(*v1alpha1.EventResponse)
		says   string
	}{
		"a segment's digest":  {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Segments[0].SHA256 = evidence.Digest(nil) }, "rootfs.tar.zst/1: read sha256"},
		"a segment's size":    {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Segments[1].Size = 2 }, "rootfs.tar.zst/0: read 3 bytes"},
		"the stream's digest": {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].SHA256 = evidence.Digest(nil) }, "the segments together have the sha256"},
		"the stream's size":   {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Size = 7 }, "the segments together have 6 bytes"},
		"a version not there": {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Segments[0].VersionID = "another" }, "no version another"},
		"the retention": {func(r *v1alpha1.EventResponse) {
			r.Status.GapsObject.RetainUntil = metav1.NewTime(time.Now().Add(48 * time.Hour))
		}, "artifacts/gaps: locked until"},
		"the list of gaps": {func(r *v1alpha1.EventResponse) { r.Status.GapsObject.SHA256 = evidence.Digest(nil) }, "artifacts/gaps: read sha256"},
		"the ordered date": {func(r *v1alpha1.EventResponse) {
			r.Spec.Action.FilesystemSnapshot.Destination.RetainUntil = metav1.NewTime(time.Now().Add(48 * time.Hour))
		}, "ordered is"},
		"another's place": {func(r *v1alpha1.EventResponse) {
			r.Spec.Action.FilesystemSnapshot.Destination.Prefix = "forensics/other"
		}, "outside of forensics/other/"},
		"one object twice":     {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Segments[0] = r.Status.Artifacts[0].Segments[1] }, "is named twice"},
		"segments in disorder": {func(r *v1alpha1.EventResponse) { r.Status.Artifacts[0].Segments[0].Index = -1 }, "the segments together have the sha256"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, verdict, err := newWorld(t, tt.change).reconcile()
			if err != nil || verdict == nil || verdict.Status != metav1.ConditionFalse || verdict.Reason != v1alpha1.ReasonDigestMismatch {
				t.Fatalf("verdict %+v (%v)", verdict, err)
			}
			if !strings.Contains(verdict.Message, tt.says) {
				t.Errorf("message %q, want %q in it", verdict.Message, tt.says)
			}
		})
	}
}

// beside gives the artifact of a capture an index and a timeline.
func (w *world) beside(response *v1alpha1.EventResponse) {
	index, timeline := w.put("artifacts/web/rootfs.index.ndjson.zst", "index"), w.put("artifacts/web/rootfs.timeline.body.zst", "timeline")
	response.Status.Artifacts[0].Index, response.Status.Artifacts[0].Timeline = &index, &timeline
}

func TestIndexAndTimelineAreReadLikeSegments(t *testing.T) {
	tests := map[string]struct {
		change func(*v1alpha1.Artifact)
		says   string
	}{
		"as asserted":           {func(*v1alpha1.Artifact) {}, "5 objects read back as asserted"},
		"the index's digest":    {func(a *v1alpha1.Artifact) { a.Index.SHA256 = evidence.Digest(nil) }, "rootfs.index.ndjson.zst: read sha256"},
		"the timeline's size":   {func(a *v1alpha1.Artifact) { a.Timeline.Size++ }, "rootfs.timeline.body.zst: read 8 bytes"},
		"a timeline not there":  {func(a *v1alpha1.Artifact) { a.Timeline.VersionID = "another" }, "no version another"},
		"an index elsewhere":    {func(a *v1alpha1.Artifact) { a.Index.Key = "other" }, "other: lies outside of artifacts/"},
		"the index's retention": {func(a *v1alpha1.Artifact) { a.Index.RetainUntil = metav1.NewTime(time.Now().Add(48 * time.Hour)) }, "zst: locked until"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(*v1alpha1.EventResponse) {})
			w.beside(w.response)
			tt.change(&w.response.Status.Artifacts[0])
			w.update()
			bundle, verdict, err := w.reconcile()
			if err != nil || verdict == nil || !strings.Contains(verdict.Message, tt.says) {
				t.Fatalf("verdict %+v (%v)", verdict, err)
			}
			if agrees := name == "as asserted"; agrees != (verdict.Status == metav1.ConditionTrue) || (agrees && len(bundle.Status.Observed) != 5) {
				t.Errorf("verdict %+v of %d objects", verdict, len(bundle.Status.Observed))
			}
		})
	}
}

func (w *world) update() {
	w.t.Helper()
	if err := w.client.Update(w.t.Context(), w.response); err != nil {
		w.t.Fatal(err)
	}
}

// encrypted makes a capture one that was ordered encrypted, whose segments hold 2 and 3 plain bytes.
func encrypted(r *v1alpha1.EventResponse) {
	r.Spec.Action.FilesystemSnapshot.Destination.Encryption = v1alpha1.EncryptionAge
	artifact := &r.Status.Artifacts[0]
	for i := range artifact.Segments {
		artifact.Segments[i].Plain = &v1alpha1.PlainContent{Size: int64(2 + i), SHA256: evidence.Digest(nil)}
	}
	artifact.Size, artifact.SHA256 = 5, evidence.Digest([]byte("plain"))
}

func TestEncryptedStreamIsComparedBySize(t *testing.T) {
	tests := map[string]struct {
		change func(*v1alpha1.EventResponse)
		says   string
		agrees bool
	}{
		"as asserted": {encrypted, "1 artifacts are encrypted: of their plain streams the sizes were compared", true},
		"another size of the stream": {func(r *v1alpha1.EventResponse) {
			encrypted(r)
			r.Status.Artifacts[0].Size = 6
		}, "the plain segments together have 5 bytes, asserted are 6", false},
		"another stored digest": {func(r *v1alpha1.EventResponse) {
			encrypted(r)
			r.Status.Artifacts[0].Segments[0].SHA256 = evidence.Digest(nil)
		}, "rootfs.tar.zst/1: read sha256", false},
		"stored as it is": {func(r *v1alpha1.EventResponse) {
			encrypted(r)
			r.Status.Artifacts[0].Segments[1].Plain = nil
			r.Status.Artifacts[0].Size = 2
		}, "rootfs.tar.zst/0: is not asserted to be encrypted, as was ordered", false},
		"encryption that nobody ordered": {func(r *v1alpha1.EventResponse) {
			encrypted(r)
			r.Spec.Action.FilesystemSnapshot.Destination.Encryption = v1alpha1.EncryptionNone
		}, "the segments together have the sha256", false},
		"a manifest, which is never encrypted": {func(r *v1alpha1.EventResponse) {
			r.Spec.Action.FilesystemSnapshot.Destination.Encryption = v1alpha1.EncryptionAge
			r.Status.Artifacts[0].Kind = v1alpha1.ArtifactManifest
		}, "3 objects read back as asserted", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, verdict, err := newWorld(t, tt.change).reconcile()
			if err != nil || verdict == nil || (verdict.Status == metav1.ConditionTrue) != tt.agrees || !strings.Contains(verdict.Message, tt.says) {
				t.Fatalf("verdict %+v (%v)", verdict, err)
			}
		})
	}
}

func TestMoreObjectsThanABundleCanNameAreADisagreement(t *testing.T) {
	var found findings
	for i := range v1alpha1.MaxObserved + 2 {
		found.observe(v1alpha1.ObservedObject{Key: fmt.Sprint(i)})
	}
	if len(found.observed) != v1alpha1.MaxObserved || len(found.disagrees) != 2 {
		t.Fatalf("%d observed, %d disagreements", len(found.observed), len(found.disagrees))
	}
	if verdict := found.verdict(); verdict.Status != metav1.ConditionFalse || !strings.Contains(verdict.Message, "900: is one more than the 900 objects") {
		t.Errorf("verdict %+v", verdict)
	}
}

func TestStoreThatRefusesSaysWhatToDo(t *testing.T) {
	w := newWorld(t, func(*v1alpha1.EventResponse) {})
	w.r.Store = func(context.Context, string) (worm.Reader, error) { return nil, fmt.Errorf("stat: %w", worm.ErrDenied) }
	_, verdict, err := w.reconcile()
	if err == nil || verdict == nil || verdict.Reason != v1alpha1.ReasonStoreDenied || !strings.Contains(verdict.Message, "credential") {
		t.Fatalf("verdict %+v (%v)", verdict, err)
	}
}

func TestStoreThatDoesNotAnswerIsNoDisagreement(t *testing.T) {
	w := newWorld(t, func(*v1alpha1.EventResponse) {})
	healthy := w.r.Store
	w.r.Store = func(context.Context, string) (worm.Reader, error) { return nil, errors.New("connection refused") }
	_, verdict, err := w.reconcile()
	if err == nil || verdict == nil || verdict.Reason != v1alpha1.ReasonStoreUnreachable {
		t.Fatalf("verdict %+v (%v)", verdict, err)
	}
	w.r.Store = healthy
	if _, verdict, err = w.reconcile(); err != nil || verdict.Status != metav1.ConditionTrue {
		t.Errorf("after the store is back: %+v (%v)", verdict, err)
	}
}
