package v1alpha1_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestContainersWithoutARootFilesystemAreNamed(t *testing.T) {
	containers := []v1alpha1.ContainerFreeze{{ContainerID: "1", Name: "web"}, {ContainerID: "2", Name: "side"}, {ContainerID: "3", Name: "web"}}
	root := func(container string) v1alpha1.Artifact {
		return v1alpha1.Artifact{Kind: v1alpha1.ArtifactRootFilesystem, Container: container}
	}
	tests := map[string]struct {
		artifacts []v1alpha1.Artifact
		missing   []string
	}{
		"nothing stored":                  {nil, []string{"web", "side", "web"}},
		"changes alone":                   {[]v1alpha1.Artifact{{Kind: v1alpha1.ArtifactUpperLayer, Container: "side"}}, []string{"web", "side", "web"}},
		"one of two of a name":            {[]v1alpha1.Artifact{root("web"), root("side")}, []string{"web"}},
		"all, and one that is not wanted": {[]v1alpha1.Artifact{root("web"), root("web"), root("side"), root("init")}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			status := v1alpha1.EventResponseStatus{Artifacts: tt.artifacts}
			if diff := cmp.Diff(tt.missing, status.WithoutRootFilesystem(containers)); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}
