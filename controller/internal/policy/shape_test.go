package policy

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/v1alpha1"
)

var update = flag.Bool("update", false, "write the policy as it is applied to testdata")

// TestGoldenPolicyIsTheOneApplied keeps in step what is applied and what hack/ciliumpolicy gives to Cilium's own library.
func TestGoldenPolicyIsTheOneApplied(t *testing.T) {
	pod := v1alpha1.PodRef{Namespace: "sandbox", Name: "victim", UID: "b2d5a9de-0000-4000-8000-000000000001", NodeName: "worker"}
	applied, err := json.MarshalIndent(shape(v1alpha1.BackendCilium, pod), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "deny-all-cilium.json")
	if *update {
		if err := os.WriteFile(golden, append(applied, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	checked, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(checked), string(applied)+"\n"); diff != "" {
		t.Fatalf("run go test ./controller/internal/policy -run %s -update, then make ciliumpolicy: %s", t.Name(), diff)
	}
}
