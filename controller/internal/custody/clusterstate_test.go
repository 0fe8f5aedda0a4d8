package custody_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/custody"
)

// failed is the material of an incident whose capture failed, and whose pod was let go.
func failed() *custody.Material {
	m := whole()
	m.Responses[1].Status.Artifacts = nil
	m.Responses = slices.Delete(m.Responses, 2, 3)
	m.Responses[2].Spec.ParentRef = &v1alpha1.Ref{Name: snapshot, UID: "uid-" + snapshot}
	m.Incident.Status.Responses = slices.Delete(m.Incident.Status.Responses, 2, 3)
	return m
}

func TestClusterStateThatNoManifestNamesIsOnRecord(t *testing.T) {
	state := evidence.CustodyObject{StoredVersion: listed("cluster-state"), Role: evidence.RoleClusterState}
	missing := []evidence.Gap{{Reason: "ClusterStateMissing", Message: "the pod's objects of the API server were not stored: make room", Count: 1}}
	named := whole()
	named.Responses[2].Status.Artifacts = append(named.Responses[2].Status.Artifacts, v1alpha1.Artifact{
		Name: "cluster-state.yaml", Kind: v1alpha1.ArtifactClusterState, Segments: []v1alpha1.StoredObject{object("cluster-state")},
	})
	// The node's agent writes the status of the snapshot, and of the freeze.
	claimed := func(m *custody.Material, kind v1alpha1.ArtifactKind) *custody.Material {
		for i := range 2 {
			m.Responses[i].Status.Artifacts = append(m.Responses[i].Status.Artifacts, v1alpha1.Artifact{
				Name: "claimed", Kind: kind, Segments: []v1alpha1.StoredObject{object("claimed")},
			})
		}
		return m
	}
	dry := failed()
	dry.Incident.Spec.DryRun = true
	tests := map[string]struct {
		m     *custody.Material
		state *v1alpha1.ClusterState
		want  int // objects of the state
		gaps  []evidence.Gap
	}{
		"stored":                      {failed(), &v1alpha1.ClusterState{Object: pointer("cluster-state")}, 1, nil},
		"not stored":                  {failed(), &v1alpha1.ClusterState{Reason: "StoreFull", Message: "make room"}, 0, missing},
		"not even tried":              {failed(), nil, 0, []evidence.Gap{{Reason: "ClusterStateMissing", Message: "the pod's objects of the API server were not stored", Count: 1}}},
		"named by the manifest's":     {named, &v1alpha1.ClusterState{Object: pointer("cluster-state")}, 0, nil},
		"stored after the manifest":   {whole(), &v1alpha1.ClusterState{Object: pointer("cluster-state")}, 1, nil},
		"missing, as a manifest says": {whole(), nil, 0, nil},
		"of a dry run":                {dry, nil, 0, nil},
		"claimed by the agent":        {claimed(failed(), v1alpha1.ArtifactClusterState), &v1alpha1.ClusterState{Object: pointer("cluster-state")}, 1, nil},
		"claimed and missing":         {claimed(failed(), v1alpha1.ArtifactClusterState), &v1alpha1.ClusterState{Reason: "StoreFull", Message: "make room"}, 0, missing},
		"missing, a manifest claimed": {claimed(failed(), v1alpha1.ArtifactManifest), &v1alpha1.ClusterState{Reason: "StoreFull", Message: "make room"}, 0, missing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.m.Incident.Status.ClusterState = tt.state
			first, err := custody.Captured(tt.m)
			if err != nil {
				t.Fatal(err)
			}
			second, err := custody.Released(tt.m, first)
			if err != nil {
				t.Fatal(err)
			}
			for _, record := range []*evidence.Custody{first, second} {
				found := slices.Collect(func(yield func(evidence.CustodyObject) bool) {
					for _, o := range record.Objects {
						if o.Role == evidence.RoleClusterState && !yield(o) {
							return
						}
					}
				})
				if diff := cmp.Diff(slices.Repeat([]evidence.CustodyObject{state}, tt.want), found); diff != "" && tt.want+len(found) > 0 {
					t.Errorf("record %d: %s", record.Number, diff)
				}
				if diff := cmp.Diff(tt.gaps, record.Gaps); diff != "" {
					t.Errorf("record %d: gaps %s", record.Number, diff)
				}
			}
			data, err := evidence.Canonical(first)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := custody.Parse(data, v1alpha1.Ref{Name: "inc", UID: "uid-inc"}, 1); err != nil || strings.Contains(string(data), `"gaps"`) != (tt.gaps != nil) {
				t.Errorf("%s: %v", data, err)
			}
		})
	}
}

func TestLastIsTheResponseThatTheCaptureEndedWith(t *testing.T) {
	m := whole()
	slices.Reverse(m.Responses)
	if last, err := custody.Last(m); err != nil || last.Name != upload {
		t.Errorf("%v: %v", last, err)
	}
	if last, err := custody.Last(failed()); err != nil || last.Name != snapshot {
		t.Errorf("%v: %v", last, err)
	}
	m.Incident.Status.Responses = nil
	if last, err := custody.Last(m); err != nil || last != nil {
		t.Errorf("%v: %v", last, err)
	}
}
