package kindcluster

import (
	"fmt"
	"strings"
)

const (
	// Name is the cluster's, and the prefix of its node containers.
	Name         = "ugallu"
	controlPlane = Name + "-control-plane"
	worker       = Name + "-worker"
)

// settings is what decides how the cluster is made.
type settings struct {
	Image string `json:"image"`
	// OwnNetwork is true for a node image without kind's network plug-in.
	OwnNetwork bool `json:"ownNetwork"`
	// KeepScores is true where the machine withholds CAP_SYS_RESOURCE: containerd then must not lower a container's
	// out-of-memory score below its own, or no sandbox starts.
	KeepScores bool `json:"keepScores"`
}

// config is kind's configuration file.
func (s settings) config() string {
	var text strings.Builder
	fmt.Fprintf(&text, "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nname: %s\nnetworking:\n  ipFamily: ipv4\n", Name)
	fmt.Fprintf(&text, "  disableDefaultCNI: %t\n", s.OwnNetwork)
	text.WriteString("nodes:\n")
	for _, role := range []string{"control-plane", "worker"} {
		fmt.Fprintf(&text, "- role: %s\n  image: %s\n", role, s.Image)
	}
	text.WriteString("containerdConfigPatches:\n- |-\n")
	text.WriteString("  [plugins.\"io.containerd.grpc.v1.cri\".registry]\n    config_path = \"/etc/containerd/certs.d\"\n")
	if s.KeepScores {
		text.WriteString("  [plugins.\"io.containerd.grpc.v1.cri\"]\n    restrict_oom_score_adj = true\n")
	}
	return text.String()
}
