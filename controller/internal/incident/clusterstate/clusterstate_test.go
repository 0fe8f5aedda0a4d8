package clusterstate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/repeat"
	"ugallu.io/forensics/internal/worm"
)

func unchanged(*v1alpha1.Incident) {}

func TestStateIsStoredOnceLockedAndOnRecord(t *testing.T) {
	w := newWorld(t, unchanged)
	w.must()
	content := w.content()
	stored := w.store.Objects()[0]
	digest := evidence.Digest(content)
	if want := "forensics/" + incidentName + "/artifacts/cluster-state-" + digest + ".yaml"; stored.Key != want {
		t.Errorf("key %s, want %s", stored.Key, want)
	}
	state := w.recorded()
	if state == nil || state.Object == nil || state.Object.SHA256 != digest || state.Object.VersionID != stored.VersionID ||
		state.Object.Size != int64(len(content)) || state.TakenAt == nil || state.Reason != "" || len(state.Gaps) > 0 {
		t.Fatalf("recorded %+v", state)
	}
	if stored.Lock.Mode != "COMPLIANCE" || !stored.Lock.RetainUntil.Equal(state.Object.RetainUntil.Time) {
		t.Errorf("locked %+v", stored.Lock)
	}
	if state.Documents != int64(bytes.Count(content, []byte("---\n")))+1 {
		t.Errorf("%d documents", state.Documents)
	}
	// The world goes on; what is on record stays.
	w.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim"}})
	w.must()
	w.restart()
	w.must()
	if len(w.store.Objects()) != 1 {
		t.Errorf("%d objects", len(w.store.Objects()))
	}
}

func TestStateHasThePodAndWhatStandsAroundIt(t *testing.T) {
	w := newWorld(t, unchanged)
	w.must()
	head, documents := w.documents()
	want := []string{
		"Pod sandbox/victim", "ReplicaSet sandbox/victim-1", "Deployment sandbox/victim", "ServiceAccount sandbox/web", "Node worker",
		"RBACSummary system:serviceaccount:sandbox:web", "Event sandbox/a", "Event sandbox/b",
	}
	if diff := cmp.Diff(want, head.Documents); diff != "" {
		t.Fatal(diff)
	}
	for i, document := range documents {
		kind, _, _ := strings.Cut(want[i], " ")
		if document["kind"] != kind {
			t.Errorf("document %d is a %v, want %s", i, document["kind"], kind)
		}
	}
	if head.Kind != "ClusterState" || head.Incident.UID != "incident-uid" || head.Pod.UID != "pod-uid" || len(head.Gaps) > 0 {
		t.Errorf("header %+v", head)
	}
	content := string(w.content())
	for _, absent := range []string{"managedFields", "swordfish"} {
		if strings.Contains(content, absent) {
			t.Errorf("%s is in it", absent)
		}
	}
	if !strings.Contains(content, "value: hunter2") {
		t.Error("a value is redacted that was not to be")
	}
}

func TestAccessIsEveryBindingOfTheAccountWithItsRules(t *testing.T) {
	w := newWorld(t, unchanged)
	w.must()
	_, documents := w.documents()
	bindings, _, err := unstructured.NestedSlice(documents[5], "bindings")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, one := range bindings {
		b, ok := one.(map[string]any)
		if !ok {
			t.Fatalf("binding %v", one)
		}
		rules, _, _ := unstructured.NestedSlice(b, "rules")
		subjects, _, _ := unstructured.NestedSlice(b, "subjects")
		rule, ok := rules[0].(map[string]any)
		if !ok {
			t.Fatalf("rule %v", rules[0])
		}
		resources, _, _ := unstructured.NestedStringSlice(rule, "resources")
		got = append(got, fmt.Sprintf("%v %v/%v: %d subjects, %v", b["kind"], b["namespace"], b["name"], len(subjects), resources))
	}
	want := []string{
		"ClusterRoleBinding <nil>/everybody: 1 subjects, [secrets]",
		"RoleBinding payments/web: 1 subjects, [configmaps]",
		"RoleBinding sandbox/by-user-name: 1 subjects, [secrets]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSameWorldIsTheSameBytes(t *testing.T) {
	first, second := newWorld(t, unchanged), newWorld(t, unchanged)
	first.must()
	second.must()
	if diff := cmp.Diff(string(first.content()), string(second.content())); diff != "" {
		t.Error(diff)
	}
}

func TestValuesAreRedactedAsOrdered(t *testing.T) {
	password, colour := "sha256:"+evidence.Digest([]byte("hunter2")), "sha256:"+evidence.Digest([]byte("red"))
	tests := map[string]struct {
		mode            v1alpha1.Redaction
		names           string
		present, absent []string
	}{
		"all":                            {v1alpha1.RedactAll, "", []string{password, colour}, []string{"hunter2", "value: red"}},
		"matching":                       {v1alpha1.RedactMatching, "PASS", []string{password, "value: red"}, []string{"hunter2", colour}},
		"matching what is no expression": {v1alpha1.RedactMatching, "(", []string{password, colour}, []string{"hunter2", "value: red"}},
		"none":                           {v1alpha1.RedactNone, "", []string{"hunter2", "value: red"}, []string{password, colour}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(incident *v1alpha1.Incident) {
				incident.Spec.Snapshot.RedactEnvironment, incident.Spec.Snapshot.RedactNames = tt.mode, tt.names
			})
			w.must()
			content := string(w.content())
			for _, present := range tt.present {
				if !strings.Contains(content, present) {
					t.Errorf("%s is missing", present)
				}
			}
			for _, absent := range tt.absent {
				if strings.Contains(content, absent) {
					t.Errorf("%s is in it", absent)
				}
			}
		})
	}
}

func TestAnnotationThatCannotBeReadIsRedactedWhole(t *testing.T) {
	tree := map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		corev1.LastAppliedConfigAnnotation: `{"env": hunter2`, "other": "stays",
	}}}
	newRedaction(v1alpha1.FilesystemSnapshotAction{RedactEnvironment: v1alpha1.RedactAll}).tree(tree)
	want := map[string]any{"metadata": map[string]any{"annotations": map[string]any{
		corev1.LastAppliedConfigAnnotation: "sha256:" + evidence.Digest([]byte(`{"env": hunter2`)), "other": "stays",
	}}}
	if diff := cmp.Diff(want, tree); diff != "" {
		t.Error(diff)
	}
}

func TestWhatCannotBeReadIsANamedGap(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim"}}
	tests := map[string]struct {
		change func(*world)
		want   []v1alpha1.GapCount
		says   string
		// has is a document that is there all the same.
		has string
	}{
		"refused bindings": {
			func(w *world) { w.refused["ClusterRoleBinding"] = true },
			[]v1alpha1.GapCount{{Reason: "ClusterObjectUnreadable", Count: 1}},
			"not for you", "RBACSummary",
		},
		"refused roles": {
			func(w *world) { w.refused["ClusterRole"] = true },
			[]v1alpha1.GapCount{{Reason: "ClusterObjectUnreadable", Count: 1}},
			"ClusterRole reader", "RBACSummary",
		},
		"refused everything": {
			func(w *world) {
				for _, kind := range []string{"Pod", "Node", "Event"} {
					w.refused[kind] = true
				}
			},
			[]v1alpha1.GapCount{{Reason: "ClusterObjectUnreadable", Count: 3}},
			"Pod sandbox/victim", "",
		},
		"a server that does not answer": {
			func(w *world) { w.broken["Node"] = repeat.Tries },
			[]v1alpha1.GapCount{{Reason: "ClusterObjectUnreadable", Count: 1}},
			"Node worker: hiccup", "Event sandbox/a",
		},
		"a pod that is gone": {
			func(w *world) { w.delete(pod) },
			[]v1alpha1.GapCount{{Reason: "ClusterObjectGone", Count: 1}},
			"Pod sandbox/victim", "Event sandbox/a",
		},
		"another pod of the name": {
			func(w *world) {
				w.delete(pod)
				w.create(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim", UID: "another-uid"}})
			},
			[]v1alpha1.GapCount{{Reason: "ClusterObjectGone", Count: 1}},
			"with uid another-uid", "Node worker",
		},
		"an owner that is gone": {
			func(w *world) {
				w.delete(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim"}})
			},
			[]v1alpha1.GapCount{{Reason: "ClusterObjectGone", Count: 1}},
			"Deployment sandbox/victim", "ReplicaSet sandbox/victim-1",
		},
		"an owner of another kind": {
			func(w *world) { w.own("v1", "Secret", "secret") },
			[]v1alpha1.GapCount{{Reason: "ClusterKindNotRead", Count: 1}},
			"Secret sandbox/secret", "Pod sandbox/victim",
		},
		"too many owners": {
			func(w *world) {
				for i := range maxOwners + 2 {
					w.own("v1", "Secret", fmt.Sprintf("secret-%d", i))
				}
			},
			[]v1alpha1.GapCount{{Reason: "ClusterKindNotRead", Count: maxOwners - 1}, {Reason: "ClusterStateTruncated", Count: 1}},
			"more than 16", "",
		},
		"an object that is too large": {
			func(w *world) {
				w.create(&corev1.Event{
					ObjectMeta:     metav1.ObjectMeta{Namespace: "sandbox", Name: "large"},
					InvolvedObject: corev1.ObjectReference{UID: "pod-uid"}, Message: strings.Repeat("x", maxDocument),
				})
			},
			[]v1alpha1.GapCount{{Reason: "ClusterStateTruncated", Count: 1}},
			"Event sandbox/large", "Event sandbox/b",
		},
		"rules that are too many": {
			func(w *world) {
				w.update(&rbacv1.ClusterRole{
					ObjectMeta: metav1.ObjectMeta{Name: "reader"},
					Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{strings.Repeat("x", maxRules)}, Verbs: []string{"get"}}},
				})
			},
			[]v1alpha1.GapCount{{Reason: "ClusterStateTruncated", Count: 2}},
			"rules are left out of ClusterRoleBinding everybody", "RBACSummary",
		},
		"rules that are repeated by many bindings": {
			func(w *world) {
				w.update(&rbacv1.ClusterRole{
					ObjectMeta: metav1.ObjectMeta{Name: "reader"},
					Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{strings.Repeat("x", maxRules/2)}, Verbs: []string{"get"}}},
				})
			},
			[]v1alpha1.GapCount{{Reason: "ClusterStateTruncated", Count: 1}},
			"rules are left out of RoleBinding by-user-name", "RBACSummary",
		},
		"bindings that are too many": {
			func(w *world) {
				for i := range maxBindings {
					w.create(&rbacv1.RoleBinding{
						ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: fmt.Sprintf("more-%d", i)},
						RoleRef:    rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
						Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "sandbox", Name: "web"}},
					})
				}
			},
			[]v1alpha1.GapCount{{Reason: "ClusterStateTruncated", Count: 1}},
			"3 more than 200", "RBACSummary",
		},
		"a role that is gone": {
			func(w *world) {
				w.delete(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "payments", Name: "writer"}})
			},
			[]v1alpha1.GapCount{{Reason: "ClusterObjectGone", Count: 1}},
			"Role payments/writer", "RBACSummary",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, unchanged)
			tt.change(w)
			w.must()
			got := w.recorded().Gaps
			var messages string
			for i := range got {
				messages += got[i].Message + "\n"
				got[i].Message = ""
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			head, _ := w.documents()
			if !strings.Contains(messages, tt.says) || len(head.Gaps) == 0 {
				t.Errorf("gaps say %q, in the header %v", messages, head.Gaps)
			}
			if !strings.Contains(strings.Join(head.Documents, "\n"), tt.has) {
				t.Errorf("%s is missing from %v", tt.has, head.Documents)
			}
		})
	}
}

func TestSubjectThatIsRepeatedIsNamedOnce(t *testing.T) {
	subjects := make([]rbacv1.Subject, 1000)
	for i := range subjects {
		subjects[i] = rbacv1.Subject{Kind: "User", Name: []string{"jane", "joe"}[i%2]}
	}
	found := matching(subjects, func(subject rbacv1.Subject) bool { return subject.Name == "joe" })
	if diff := cmp.Diff(subjects[1:2], found); diff != "" {
		t.Error(diff)
	}
}

func TestHiccupIsNoGap(t *testing.T) {
	w := newWorld(t, unchanged)
	w.broken["Pod"] = repeat.Tries - 1
	w.must()
	if gaps := w.recorded().Gaps; len(gaps) > 0 {
		t.Errorf("gaps %v", gaps)
	}
}

func TestStoreThatIsAwayGetsTheStateOfThen(t *testing.T) {
	w := newWorld(t, unchanged)
	w.unusable = fmt.Errorf("put: %w", worm.ErrFull)
	for range 2 {
		if err := w.reconcile(); !errors.Is(err, worm.ErrFull) {
			t.Fatalf("error %v", err)
		}
		if state := w.recorded(); state.Object != nil || state.Reason != v1alpha1.ReasonStoreFull || !strings.Contains(state.Message, "make room") {
			t.Fatalf("recorded %+v", state)
		}
	}
	w.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "sandbox", Name: "victim"}})
	w.unusable = nil
	w.must()
	head, _ := w.documents()
	if state := w.recorded(); state.Object == nil || state.Reason != "" || len(state.Gaps) > 0 || head.Documents[0] != "Pod sandbox/victim" {
		t.Errorf("recorded %+v of %v", state, head.Documents)
	}
	if w.r.shelf.size != 0 || len(w.r.shelf.waiting) != 0 {
		t.Errorf("%d bytes are kept of what is stored", w.r.shelf.size)
	}
}

func TestStateThatWasPutAndNotRecordedIsNotDoubled(t *testing.T) {
	w := newWorld(t, unchanged)
	w.must()
	var incident v1alpha1.Incident
	if err := w.base.Get(t.Context(), client.ObjectKey{Name: incidentName}, &incident); err != nil {
		t.Fatal(err)
	}
	incident.Status.ClusterState = nil
	if err := w.base.Status().Update(t.Context(), &incident); err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.must()
	if state := w.recorded(); len(w.store.Objects()) != 1 || state == nil || state.Object == nil {
		t.Errorf("%d objects, recorded %+v", len(w.store.Objects()), state)
	}
}

func TestStateIsEncryptedWhereTheEvidenceIs(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(incident *v1alpha1.Incident) {
		to := &incident.Spec.Snapshot.Destination
		to.Encryption, to.AgeRecipients = v1alpha1.EncryptionAge, []string{identity.Recipient().String()}
	})
	w.must()
	encrypted := w.content()
	if bytes.Contains(encrypted, []byte("victim")) {
		t.Fatal("stored as it is")
	}
	reader, err := age.Decrypt(bytes.NewReader(encrypted), identity)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	object := w.recorded().Object
	want := &v1alpha1.PlainContent{Size: int64(len(plain)), SHA256: evidence.Digest(plain)}
	if diff := cmp.Diff(want, object.Plain); diff != "" || object.SHA256 != evidence.Digest(encrypted) || !bytes.Contains(plain, []byte("victim")) {
		t.Errorf("recorded %+v: %s", object, diff)
	}
}

func TestNothingIsStoredThatCannotBeEncrypted(t *testing.T) {
	w := newWorld(t, func(incident *v1alpha1.Incident) {
		to := &incident.Spec.Snapshot.Destination
		to.Encryption, to.AgeRecipients = v1alpha1.EncryptionAge, []string{"age1nonsense"}
	})
	err := w.reconcile()
	if !errors.Is(err, reconcile.TerminalError(nil)) {
		t.Errorf("error %v is tried again", err)
	}
	if state := w.recorded(); len(w.store.Objects()) > 0 || state.Reason != v1alpha1.ReasonConfigInvalid || !strings.Contains(state.Message, "ageRecipients") {
		t.Errorf("%d objects, recorded %+v", len(w.store.Objects()), state)
	}
}

func TestNothingIsReadOfAnIncidentThatNeedsNothing(t *testing.T) {
	condition := func(kind string) func(*v1alpha1.Incident) {
		return func(incident *v1alpha1.Incident) {
			incident.Status.Conditions = []metav1.Condition{{Type: kind, Status: metav1.ConditionTrue, Reason: "Test"}}
		}
	}
	for name, change := range map[string]func(*v1alpha1.Incident){
		"dry run":  func(incident *v1alpha1.Incident) { incident.Spec.DryRun = true },
		"uploaded": condition(v1alpha1.ConditionUploaded),
		"released": condition(v1alpha1.ConditionReleased),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, change)
			w.must()
			if len(w.store.Objects()) > 0 {
				t.Error("stored")
			}
		})
	}
	if err := newWorld(t, condition(v1alpha1.ConditionFailed)).reconcile(); err != nil {
		t.Error("a failed capture keeps the state that there is: ", err)
	}
}

func TestShelfIsBounded(t *testing.T) {
	var s shelf
	half := taken{stored: make([]byte, maxShelved/2)}
	for _, name := range []string{"first", "first", "second", "third"} {
		s.put(name, half)
	}
	if _, kept := s.get("third"); kept || s.size != maxShelved {
		t.Errorf("%d bytes are kept", s.size)
	}
	s.drop("first")
	s.drop("first")
	s.put("third", half)
	if _, kept := s.get("third"); !kept {
		t.Error("there was room")
	}
}

func (w *world) create(object client.Object) {
	w.t.Helper()
	if err := w.base.Create(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

// own adds an owner to the pod, as whoever may edit it can.
func (w *world) own(version, kind, name string) {
	w.t.Helper()
	var pod corev1.Pod
	if err := w.base.Get(w.t.Context(), client.ObjectKey{Namespace: "sandbox", Name: "victim"}, &pod); err != nil {
		w.t.Fatal(err)
	}
	pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{APIVersion: version, Kind: kind, Name: name, UID: types.UID(name)})
	if err := w.base.Update(w.t.Context(), &pod); err != nil {
		w.t.Fatal(err)
	}
}
