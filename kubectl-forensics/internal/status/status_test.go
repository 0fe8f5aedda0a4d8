package status_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/kubectl-forensics/internal/status"
)

var begun = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func incident(name, namespace, pod string, age time.Duration) *v1alpha1.Incident {
	unfreeze := metav1.NewTime(begun.Add(time.Hour))
	return &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("uid-" + name), CreationTimestamp: metav1.NewTime(begun.Add(-age))},
		Spec: v1alpha1.IncidentSpec{
			Pod:      v1alpha1.PodRef{Namespace: namespace, Name: pod, UID: "pod-" + name, NodeName: "node-1"},
			Snapshot: v1alpha1.FilesystemSnapshotAction{Destination: v1alpha1.Destination{Bucket: "evidence"}},
		},
		Status: v1alpha1.IncidentStatus{
			State: v1alpha1.IncidentCapturing, UnfreezeAt: &unfreeze, Custody: []v1alpha1.StoredObject{{Key: "forensics/" + name + "/custody-1-x.json"}},
			Conditions: []metav1.Condition{{Type: v1alpha1.ConditionContained, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded, Message: "cut off\nmore"}},
		},
	}
}

func response(of *v1alpha1.Incident, step v1alpha1.Step, status v1alpha1.EventResponseStatus) *v1alpha1.EventResponse {
	name := v1alpha1.ResponseName(of.Name, step, 1)
	return &v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID(name), Labels: map[string]string{v1alpha1.LabelIncidentUID: string(of.UID), v1alpha1.LabelStep: string(step)},
		},
		Spec: v1alpha1.EventResponseSpec{Attempt: 1}, Status: status,
	}
}

func at(seconds int) *metav1.MicroTime {
	at := metav1.NewMicroTime(begun.Add(time.Duration(seconds) * time.Second))
	return &at
}

func reader(t *testing.T) client.Reader {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	ours := incident("1111111111111111", "shop", "web", time.Minute)
	freeze := response(ours, v1alpha1.StepFreeze, v1alpha1.EventResponseStatus{
		Phase: v1alpha1.ResponseSucceeded, StartedAt: at(0), CompletedAt: at(1), Gaps: []v1alpha1.GapCount{{Reason: "A", Count: 2}, {Reason: "B", Count: 3}},
	})
	snapshot := response(ours, v1alpha1.StepSnapshot, v1alpha1.EventResponseStatus{
		Phase: v1alpha1.ResponseRunning, StartedAt: at(2), Progress: &v1alpha1.Progress{CurrentArtifact: "web/rootfs.tar.zst", Files: 7},
	})
	bundle := &v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "ab-1", Labels: map[string]string{v1alpha1.LabelIncidentUID: string(ours.UID)}},
		Spec: v1alpha1.AttestationBundleSpec{
			AttestedFor: v1alpha1.AttestedFor{Kind: v1alpha1.AttestedEventResponse, Ref: v1alpha1.Ref{Name: freeze.Name, UID: string(freeze.UID)}},
		},
		Status: v1alpha1.AttestationBundleStatus{Phase: v1alpha1.BundleSealed},
	}
	// The second bundle of a statement is listed after the first, and says less.
	second := bundle.DeepCopy()
	second.Name, second.Status.Phase = "ab-2", v1alpha1.BundleLogged
	second.Spec.Countersigns = &v1alpha1.Countersigned{Name: bundle.Name, Mode: v1alpha1.SigningFulcioKeyless}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		ours, incident("2222222222222222", "other", "web", time.Hour), snapshot, freeze, bundle, second,
	).Build()
}

func TestFindByIncidentAndByPod(t *testing.T) {
	for name, test := range map[string]struct {
		name, namespace string
		want            []string
	}{
		"incident":          {"1111111111111111", "", []string{"1111111111111111"}},
		"pod, oldest first": {"web", "", []string{"2222222222222222", "1111111111111111"}},
		"pod of one place":  {"web", "shop", []string{"1111111111111111"}},
		"nobody":            {"db", "", nil},
		"elsewhere":         {"web", "nowhere", nil},
	} {
		t.Run(name, func(t *testing.T) {
			views, err := status.Find(t.Context(), reader(t), test.name, test.namespace)
			if err != nil || len(views) != len(test.want) {
				t.Fatalf("%d views, %v", len(views), err)
			}
			for i, view := range views {
				if view.Incident != test.want[i] {
					t.Errorf("view %d is of %s, want %s", i, view.Incident, test.want[i])
				}
			}
		})
	}
}

func TestWriteTellsHowFarItIs(t *testing.T) {
	views, err := status.Find(t.Context(), reader(t), "web", "shop")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := status.Write(&text, views, begun.Add(10*time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"incident 1111111111111111: Capturing, pod shop/web (pod-1111111111111111) on node-1",
		"took 1s, 5 gaps", "for 8s, web/rootfs.tar.zst: 7 files, 0 bytes read, 0 stored", "Sealed", "unsigned",
		"Succeeded  cut off\n", "at 2026-03-01T13:00:00Z, in 59m50s", "s3://evidence/forensics/1111111111111111/custody-1-x.json",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	if freeze, snapshot := strings.Index(text.String(), "podfreeze"), strings.Index(text.String(), "filesystem-snapshot"); freeze > snapshot {
		t.Error("steps are not in order")
	}
}
