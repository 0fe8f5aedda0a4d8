package custody_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/custody"
)

var until = time.Date(2036, 3, 1, 0, 0, 0, 0, time.UTC)

func digest(of string) string { return evidence.Digest([]byte(of)) }

func object(key string) v1alpha1.StoredObject {
	return v1alpha1.StoredObject{
		Key: "forensics/inc/" + key, VersionID: "v-" + key, SHA256: digest(key), Size: int64(len(key)), RetainUntil: metav1.NewTime(until),
	}
}

func listed(key string) evidence.StoredVersion {
	return evidence.StoredVersion{
		Key: "forensics/inc/" + key, VersionID: "v-" + key, SHA256: digest(key), Size: int64(len(key)), RetainUntil: until,
	}
}

func pointer(key string) *v1alpha1.StoredObject {
	stored := object(key)
	return &stored
}

func sealed(name, key string) v1alpha1.AttestationBundle {
	return v1alpha1.AttestationBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status: v1alpha1.AttestationBundleStatus{
			Conditions:      []metav1.Condition{{Type: v1alpha1.ConditionSealed, Status: metav1.ConditionTrue}},
			Phase:           v1alpha1.BundleSealed,
			StatementDigest: digest("payload of " + key), Object: pointer(key),
		},
	}
}

func response(step v1alpha1.Step, action v1alpha1.ActionType, attempt int32, parent string) v1alpha1.EventResponse {
	completed := metav1.NewMicroTime(until)
	r := v1alpha1.EventResponse{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.ResponseName("inc", step, attempt)},
		Spec:       v1alpha1.EventResponseSpec{Attempt: attempt, Action: v1alpha1.Action{Type: action}},
		Status:     v1alpha1.EventResponseStatus{CompletedAt: &completed},
	}
	r.UID = types.UID("uid-" + r.Name)
	if parent != "" {
		r.Spec.ParentRef = &v1alpha1.Ref{Name: parent, UID: "uid-" + parent}
	}
	return r
}

const (
	freeze   = "er-inc-podfreeze"
	snapshot = "er-inc-filesystem-snapshot"
	upload   = "er-inc-evidence-upload"
	unfreeze = "er-inc-podunfreeze"
	second   = "er-inc-podunfreeze-r2"
	first    = "custody-1"
)

// whole is the material of an incident that is over: the release took two attempts.
func whole() *custody.Material {
	incident := &v1alpha1.Incident{
		ObjectMeta: metav1.ObjectMeta{Name: "inc", UID: "uid-inc"},
		Spec: v1alpha1.IncidentSpec{
			Trigger: v1alpha1.Trigger{Ref: v1alpha1.Ref{Name: "se-trigger", UID: "uid-trigger"}},
			Pod:     v1alpha1.PodRef{Namespace: "shop", Name: "web", UID: "uid-pod", NodeName: "node-1"},
			Snapshot: v1alpha1.FilesystemSnapshotAction{Destination: v1alpha1.Destination{
				Bucket: "evidence", Prefix: "forensics/inc", LockMode: v1alpha1.LockCompliance, RetainUntil: metav1.NewTime(until),
			}},
		},
		Status: v1alpha1.IncidentStatus{
			CompletionEvent: &v1alpha1.Ref{Name: "se-inc-completed", UID: "uid-completed"},
			Conditions:      []metav1.Condition{{Type: v1alpha1.ConditionReleased, Status: metav1.ConditionTrue}},
		},
	}
	responses := []v1alpha1.EventResponse{
		response(v1alpha1.StepFreeze, v1alpha1.ActionPodFreeze, 1, ""),
		response(v1alpha1.StepSnapshot, v1alpha1.ActionFilesystemSnapshot, 1, freeze),
		response(v1alpha1.StepUpload, v1alpha1.ActionEvidenceUpload, 1, snapshot),
		response(v1alpha1.StepUnfreeze, v1alpha1.ActionPodUnfreeze, 1, upload),
		response(v1alpha1.StepUnfreeze, v1alpha1.ActionPodUnfreeze, 2, unfreeze),
	}
	responses[0].Status.Containment = &v1alpha1.Containment{FlowsObject: pointer("flows")}
	responses[1].Status.Artifacts = []v1alpha1.Artifact{{
		Name: "web/rootfs", Kind: v1alpha1.ArtifactRootFilesystem, Segments: []v1alpha1.StoredObject{object("root/1"), object("root/0")},
		Index: pointer("root.index"), Timeline: pointer("root.timeline"),
	}}
	responses[1].Status.GapsObject = pointer("gaps")
	responses[2].Status.Artifacts = []v1alpha1.Artifact{{
		Name: "manifest", Kind: v1alpha1.ArtifactManifest, Segments: []v1alpha1.StoredObject{object("manifest")},
	}}
	m := &custody.Material{Incident: incident, Responses: responses}
	for i := range responses {
		r := &responses[i]
		incident.Status.Responses = append(incident.Status.Responses, v1alpha1.Ref{Name: r.Name, UID: string(r.UID)})
		m.Bundles = append(m.Bundles, sealed(v1alpha1.BundleName(string(r.UID)), r.Name))
	}
	over := sealed(v1alpha1.CustodyBundleName("uid-inc", 1), first+".sigstore")
	over.Spec.AttestedFor.Kind, over.Status.Record = v1alpha1.AttestedIncident, pointer(first)
	m.Bundles = append(m.Bundles, over, sealed(v1alpha1.BundleName("uid-trigger"), "trigger"), sealed(v1alpha1.BundleName("uid-completed"), "completed"))
	return m
}

func statement(kind evidence.StatementKind, name, uid, step, key string) evidence.CustodyStatement {
	return evidence.CustodyStatement{
		Kind: kind, Subject: evidence.Reference{Name: name, UID: uid}, Step: step, PayloadSHA256: digest("payload of " + key), Bundle: listed(key),
	}
}

func step(name string, step v1alpha1.Step) evidence.CustodyStatement {
	return statement(evidence.StatementEventResponse, name, "uid-"+name, string(step), name)
}

func wantCaptured() *evidence.Custody {
	return &evidence.Custody{
		Version: "v1", Number: 1, Incident: evidence.Reference{Name: "inc", UID: "uid-inc"},
		Trigger: evidence.Reference{Name: "se-trigger", UID: "uid-trigger"},
		Pod:     evidence.Pod{Namespace: "shop", Name: "web", UID: "uid-pod", Node: "node-1"}, RetainUntil: until, LockMode: "COMPLIANCE",
		Statements: []evidence.CustodyStatement{
			statement(evidence.StatementSecurityEvent, "se-trigger", "uid-trigger", "", "trigger"),
			step(freeze, v1alpha1.StepFreeze), step(snapshot, v1alpha1.StepSnapshot), step(upload, v1alpha1.StepUpload),
			statement(evidence.StatementSecurityEvent, "se-inc-completed", "uid-completed", "", "completed"),
		},
		Objects: []evidence.CustodyObject{
			{StoredVersion: listed("flows"), Role: evidence.RoleAttachment},
			{StoredVersion: listed("gaps"), Role: evidence.RoleAttachment},
			{StoredVersion: listed("manifest"), Role: evidence.RoleManifest},
			{StoredVersion: listed("root.index"), Role: evidence.RoleIndex, Artifact: "web/rootfs"},
			{StoredVersion: listed("root.timeline"), Role: evidence.RoleTimeline, Artifact: "web/rootfs"},
			{StoredVersion: listed("root/0"), Role: evidence.RoleSegment, Artifact: "web/rootfs"},
			{StoredVersion: listed("root/1"), Role: evidence.RoleSegment, Artifact: "web/rootfs"},
		},
	}
}

func TestTheFirstRecordListsEverythingUpToTheEndOfTheCapture(t *testing.T) {
	got, err := custody.Captured(whole())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantCaptured(), got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestTheSecondRecordGoesOnFromTheFirst(t *testing.T) {
	before := wantCaptured()
	trust := evidence.CustodyObject{StoredVersion: listed("trust/root"), Role: evidence.RoleTrust}
	custody.Add(before, trust)
	got, err := custody.Released(whole(), before)
	if err != nil {
		t.Fatal(err)
	}
	newer := evidence.CustodyObject{StoredVersion: listed("trust/newer"), Role: evidence.RoleTrust}
	custody.Add(got, trust, newer)
	want := wantCaptured()
	previous := listed(first)
	want.Number, want.Previous = 2, &previous
	want.Statements = append(want.Statements, statement(evidence.StatementIncident, "inc", "uid-inc", "", first+".sigstore"),
		step(unfreeze, v1alpha1.StepUnfreeze), step(second, v1alpha1.StepUnfreeze))
	want.Objects = append(want.Objects, newer, trust)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestARecordIsTheSameInWhateverOrderItsMaterialCame(t *testing.T) {
	for name, record := range map[string]func(*custody.Material) (*evidence.Custody, error){
		"captured": custody.Captured,
		"released": func(m *custody.Material) (*evidence.Custody, error) { return custody.Released(m, wantCaptured()) },
	} {
		t.Run(name, func(t *testing.T) {
			straight, reversed := whole(), whole()
			slices.Reverse(reversed.Responses)
			slices.Reverse(reversed.Bundles)
			slices.Reverse(reversed.Incident.Status.Responses)
			var forms [2][]byte
			for i, m := range []*custody.Material{straight, reversed} {
				made, err := record(m)
				if err != nil {
					t.Fatal(err)
				}
				if forms[i], err = evidence.Canonical(made); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(forms[0]), string(forms[1])); diff != "" {
				t.Errorf("(-straight +reversed):\n%s", diff)
			}
		})
	}
}

func TestAManifestThatTheAgentClaimsIsASegment(t *testing.T) {
	m := whole()
	m.Responses[1].Status.Artifacts = append(m.Responses[1].Status.Artifacts, v1alpha1.Artifact{
		Name: "claimed", Kind: v1alpha1.ArtifactManifest, Segments: []v1alpha1.StoredObject{object("claimed")},
	})
	want := wantCaptured()
	custody.Add(want, evidence.CustodyObject{StoredVersion: listed("claimed"), Role: evidence.RoleSegment, Artifact: "claimed"})
	got, err := custody.Captured(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestTwoAccountsOfOneVersionAreBothListed(t *testing.T) {
	m := whole()
	twice, other := object("root/0"), object("root/0")
	other.SHA256 = digest("other")
	m.Responses[1].Status.Artifacts[0].Segments = []v1alpha1.StoredObject{twice, twice, other}
	record, err := custody.Captured(m)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, listed := range record.Objects {
		if strings.HasSuffix(listed.Key, "root/0") {
			found++
		}
	}
	if found != 2 {
		t.Errorf("listed %d times, want 2", found)
	}
}

// bundle of the object with this uid.
// countersign has a statement begun in two modes, and adds the second bundle.
func countersign(m *custody.Material, uid string) *v1alpha1.AttestationBundle {
	first := bundle(m, uid)
	first.Status.SigningModes = []v1alpha1.SigningMode{v1alpha1.SigningOpenBaoTransit, v1alpha1.SigningFulcioKeyless}
	second := sealed(v1alpha1.CountersignatureName(first.Name, v1alpha1.SigningFulcioKeyless), "second-"+uid)
	second.Spec.Countersigns = &v1alpha1.Countersigned{Name: first.Name, Mode: v1alpha1.SigningFulcioKeyless}
	second.Status.StatementDigest = first.Status.StatementDigest
	m.Bundles = append(m.Bundles, second)
	return &m.Bundles[len(m.Bundles)-1]
}

func TestARecordListsEveryBundleOfAStatement(t *testing.T) {
	m := whole()
	countersign(m, "uid-"+freeze)
	bundle(m, "uid-"+snapshot).Status.WithdrawnModes = []v1alpha1.SigningMode{v1alpha1.SigningFulcioKeyless}
	record, err := custody.Captured(m)
	if err != nil {
		t.Fatal(err)
	}
	want := wantCaptured()
	want.Statements[1].Countersignatures = []evidence.Countersignature{{Mode: evidence.ModeKeyless, StoredVersion: listed("second-uid-" + freeze)}}
	want.Gaps = []evidence.Gap{{
		Reason: evidence.GapModeWithdrawn, Count: 1,
		Message: "the statement about " + snapshot + " was begun in mode fulcio-keyless, which AttestorConfig lost before it signed",
	}}
	if diff := cmp.Diff(want, record); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
	after, err := custody.Released(m, record)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Gaps, after.Gaps); diff != "" {
		t.Errorf("gaps of the second record (-want +got):\n%s", diff)
	}
	other := whole()
	countersign(other, "uid-"+freeze).Status.StatementDigest = digest("another")
	if _, err := custody.Captured(other); err == nil || !strings.Contains(err.Error(), "attests another statement") {
		t.Errorf("another statement: %v", err)
	}
	for name, change := range map[string]func(*v1alpha1.Countersigned){
		"of another bundle": func(c *v1alpha1.Countersigned) { c.Name = "another" },
		"in another mode":   func(c *v1alpha1.Countersigned) { c.Mode = v1alpha1.SigningOpenBaoTransit },
	} {
		foreign := whole()
		change(countersign(foreign, "uid-"+freeze).Spec.Countersigns)
		if _, err := custody.Captured(foreign); err == nil || !strings.Contains(err.Error(), "is not the one that countersigns") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func bundle(m *custody.Material, uid string) *v1alpha1.AttestationBundle {
	name := v1alpha1.BundleName(uid)
	if uid == first {
		name = v1alpha1.CustodyBundleName("uid-inc", 1)
	}
	at := slices.IndexFunc(m.Bundles, func(b v1alpha1.AttestationBundle) bool { return b.Name == name })
	return &m.Bundles[at]
}

func TestARecordIsRefusedWithTheReason(t *testing.T) {
	unseal := func(uid string) func(*custody.Material) {
		return func(m *custody.Material) {
			status := &bundle(m, uid).Status
			status.Conditions, status.Phase = nil, v1alpha1.BundleLogged
		}
	}
	gone := func(name string) func(*custody.Material) {
		return func(m *custody.Material) {
			m.Responses = slices.DeleteFunc(m.Responses, func(r v1alpha1.EventResponse) bool { return r.Name == name })
		}
	}
	unsignable := func(uid string) func(*custody.Material) {
		return func(m *custody.Material) {
			bundle(m, uid).Status = v1alpha1.AttestationBundleStatus{Phase: v1alpha1.BundleFailed, Conditions: []metav1.Condition{{
				Type: v1alpha1.ConditionSigned, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonSubjectGone,
			}}}
		}
	}
	rows := map[string]struct {
		change   func(*custody.Material)
		released bool
		want     error
		names    string
	}{
		"the capture has not ended": {change: func(m *custody.Material) { m.Incident.Status.CompletionEvent = nil }, want: custody.ErrUnsealed, names: "no event"},
		"the trigger":               {change: unseal("uid-trigger"), want: custody.ErrUnsealed, names: "se-trigger"},
		"a step":                    {change: unseal("uid-" + snapshot), want: custody.ErrUnsealed, names: snapshot},
		"the second mode of a step": {change: func(m *custody.Material) {
			countersign(m, "uid-"+freeze).Status.Conditions = nil
		}, want: custody.ErrUnsealed, names: freeze + " in mode fulcio-keyless"},
		"the end":                 {change: unseal("uid-completed"), want: custody.ErrUnsealed, names: "Logged"},
		"a trigger that went":     {change: unsignable("uid-trigger"), want: custody.ErrMissing, names: "se-trigger"},
		"a step without a bundle": {change: func(m *custody.Material) { bundle(m, "uid-"+freeze).Name = "another" }, want: custody.ErrUnsealed, names: freeze},
		"a seal without a place":  {change: func(m *custody.Material) { bundle(m, "uid-"+freeze).Status.Object = nil }, want: custody.ErrUnsealed, names: freeze},
		"a step that runs":        {change: func(m *custody.Material) { m.Responses[1].Status.CompletedAt = nil }, want: custody.ErrUnsealed, names: snapshot},
		"a step that is gone":     {change: gone(snapshot), want: custody.ErrMissing, names: snapshot},
		"a step made anew":        {change: func(m *custody.Material) { m.Responses[1].UID = "another" }, want: custody.ErrMissing, names: snapshot},
		"a parent that is gone": {change: func(m *custody.Material) {
			m.Incident.Status.Responses = slices.Delete(m.Incident.Status.Responses, 0, 1)
		}, want: custody.ErrMissing, names: freeze},
		"the pod is held":  {released: true, change: func(m *custody.Material) { m.Incident.Status.Conditions = nil }, want: custody.ErrUnsealed, names: "held"},
		"the first record": {released: true, change: unseal(first), want: custody.ErrUnsealed, names: first},
		"the last attempt": {released: true, change: unseal("uid-" + second), want: custody.ErrUnsealed, names: second},
		"no release on record": {released: true, change: func(m *custody.Material) {
			m.Incident.Status.Responses = m.Incident.Status.Responses[:3]
		}, want: custody.ErrMissing, names: "released"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			m := whole()
			row.change(m)
			var err error
			if row.released {
				_, err = custody.Released(m, wantCaptured())
			} else {
				_, err = custody.Captured(m)
			}
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.names) {
				t.Errorf("got %v, want %q that names %s", err, row.want, row.names)
			}
		})
	}
}

func TestReleasedRefusesTheRecordOfAnotherIncident(t *testing.T) {
	for name, change := range map[string]func(*evidence.Custody){
		"another number":   func(c *evidence.Custody) { c.Number = 2 },
		"another incident": func(c *evidence.Custody) { c.Incident.UID = "another" },
		"another pod":      func(c *evidence.Custody) { c.Pod.UID = "another" },
		"another trigger":  func(c *evidence.Custody) { c.Trigger.UID = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			before := wantCaptured()
			change(before)
			if _, err := custody.Released(whole(), before); err == nil {
				t.Error("went on from it")
			}
		})
	}
}

func TestARunningReleaseDoesNotChangeTheFirstRecord(t *testing.T) {
	m := whole()
	m.Incident.Status.Conditions = nil
	m.Responses[3].Status.CompletedAt = nil
	got, err := custody.Captured(m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantCaptured(), got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}
