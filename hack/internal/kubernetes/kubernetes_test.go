package kubernetes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleFileReplacesOnlyStagingModules(t *testing.T) {
	upstream := "require (\n\tk8s.io/api v0.0.0\n\tk8s.io/utils v0.0.0-20250604170112-4c0f3b243397\n\tk8s.io/client-go v0.0.0\n\tk8s.io/klog/v2 v2.130.1\n)\n"
	want := `module kubernetesbinaries

go 1.24.0

godebug default=go1.24

require k8s.io/kubernetes v1.34.4

replace (
	k8s.io/api => k8s.io/api v0.34.4
	k8s.io/client-go => k8s.io/client-go v0.34.4
)
`
	if diff := cmp.Diff(want, moduleFile(upstream, "v1.34.4")); diff != "" {
		t.Errorf("go.mod (-want +got):\n%s", diff)
	}
}
