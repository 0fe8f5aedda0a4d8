package readback

import (
	"bytes"
	"context"
	"errors"
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
