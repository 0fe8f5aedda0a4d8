package containers

import (
	"strings"
	"testing"
)

func TestSplitFindsThePodAndItsDirectChild(t *testing.T) {
	underscored := strings.ReplaceAll(uid, "-", "_")
	systemd := "/sys/fs/cgroup/kubepods.slice/kubepods-pod" + underscored + ".slice"
	cgroupfs := "/sys/fs/cgroup/kubepods/burstable/pod" + uid
	tests := map[string]struct{ folder, pod, container string }{
		"cgroupfs driver":             {cgroupfs + "/c1", cgroupfs, cgroupfs + "/c1"},
		"systemd driver":              {systemd + "/cri-containerd-c1.scope", systemd, systemd + "/cri-containerd-c1.scope"},
		"below the container's":       {cgroupfs + "/c1/own/deep", cgroupfs, cgroupfs + "/c1"},
		"the pod's itself":            {cgroupfs, cgroupfs, ""},
		"the uid again further below": {cgroupfs + "/c1/pod" + uid + "/x", cgroupfs, cgroupfs + "/c1"},
		"another pod's":               {"/sys/fs/cgroup/kubepods/podother/c1", "", ""},
		"the node's":                  {"/sys/fs/cgroup", "", ""},
		"unknown":                     {"", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if pod, container := split(tt.folder, uid); pod != tt.pod || container != tt.container {
				t.Errorf("split = %q, %q, want %q, %q", pod, container, tt.pod, tt.container)
			}
		})
	}
}

func TestContainersFolderIsTheOneOfItsNameWhereverItsProcessIs(t *testing.T) {
	underscored := strings.ReplaceAll(uid, "-", "_")
	slice := "/s/kubepods-pod" + underscored + ".slice"
	pod := "/c/pod" + uid
	tests := map[string]struct {
		sandbox, current string
		exist            []string
		want             string
	}{
		"where it was put":          {pod + "/s1", pod + "/c1", []string{pod + "/c1"}, pod + "/c1"},
		"below that":                {pod + "/s1", pod + "/c1/own", []string{pod + "/c1"}, pod + "/c1"},
		"systemd driver":            {slice + "/cri-s1.scope", "/", []string{slice + "/cri-c1.scope"}, slice + "/cri-c1.scope"},
		"moved to the sandbox's":    {pod + "/s1", pod + "/s1", []string{pod + "/c1"}, pod + "/c1"},
		"moved away":                {pod + "/s1", "/", []string{pod + "/c1"}, pod + "/c1"},
		"moved to one like a pod's": {pod + "/s1", "/evil/pod" + uid + "/c1", []string{pod + "/c1"}, pod + "/c1"},
		"none of its name":          {pod + "/s1", pod + "/vm", nil, pod + "/vm"},
		"none, and like a pod's":    {pod + "/s1", "/evil/pod" + uid + "/c1", nil, ""},
		"sandbox of another name":   {pod + "/pause", pod + "/c1", []string{pod + "/c1"}, pod + "/c1"},
		"sandbox unknown":           {"/", pod + "/c1", nil, pod + "/c1"},
		"nothing known":             {"", "", nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			exists := func(folder string) bool {
				for _, one := range tt.exist {
					if folder == one {
						return true
					}
				}
				return false
			}
			if got := layoutOf(tt.sandbox, uid, "s1").container("c1", tt.current, uid, exists); got != tt.want {
				t.Errorf("container = %q, want %q", got, tt.want)
			}
		})
	}
}
