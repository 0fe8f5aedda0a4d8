package containers

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const uid = "11111111-2222-3333-4444-555555555555"

func TestCgroupMountsAreTheCgroup2OnesWithTheirNamesUnescaped(t *testing.T) {
	tests := map[string]struct {
		mountinfo string
		want      []mount
	}{
		"pure": {"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", []mount{{"/", "/sys/fs/cgroup"}}},
		"hybrid, v1 beside it": {
			"31 30 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
			[]mount{{"/", "/sys/fs/cgroup/unified"}},
		},
		"part of the tree, escaped": {`33 30 0:28 /kube\040pods /mnt/a\134b rw - cgroup2 none rw`, []mount{{"/kube pods", `/mnt/a\b`}}},
		"cut off":                   {"33 30 0:28\n\n34 30 0:28 / /x rw", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := cgroupMounts(strings.NewReader(tt.mountinfo))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(mount{})); diff != "" {
				t.Errorf("mounts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnifiedPathIsThatOfTheZeroHierarchy(t *testing.T) {
	tests := map[string]struct{ file, want string }{
		"pure":            {"0::/kubepods/pod1/c1\n", "/kubepods/pod1/c1"},
		"hybrid":          {"3:freezer:/a\n1:name=systemd:/b\n0::/c\n", "/c"},
		"removed":         {"0::/c (deleted)\n", "/c"},
		"colon in it":     {"0::/cri-containerd:x:0::y\n", "/cri-containerd:x:0::y"},
		"outside of ours": {"0::/../../pod1/c1\n", "/../../pod1/c1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := unifiedPath(tt.file); err != nil || got != tt.want {
				t.Errorf("unifiedPath = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := unifiedPath("3:freezer:/a\n"); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("unifiedPath without cgroup2 = %v, want ErrNoCgroup", err)
	}
}

func TestResolveTakesTheFirstMountThatShowsTheCgroup(t *testing.T) {
	tests := map[string]struct {
		mounts       []mount
		cgroup, want string
	}{
		"whole tree":             {[]mount{{"/", "/sys/fs/cgroup"}}, "/kubepods/pod1", "/sys/fs/cgroup/kubepods/pod1"},
		"the root itself":        {[]mount{{"/", "/sys/fs/cgroup"}}, "/", "/sys/fs/cgroup"},
		"part of the tree":       {[]mount{{"/kubepods", "/mnt"}}, "/kubepods/pod1", "/mnt/pod1"},
		"name that begins alike": {[]mount{{"/kube", "/a"}, {"/", "/b"}}, "/kubepods/pod1", "/b/kubepods/pod1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := resolve(tt.mounts, tt.cgroup); err != nil || got != tt.want {
				t.Errorf("resolve = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	if _, err := resolve([]mount{{"/other", "/mnt"}}, "/kubepods"); !errors.Is(err, ErrNoCgroup) {
		t.Errorf("resolve of what no mount shows = %v, want ErrNoCgroup", err)
	}
}

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
