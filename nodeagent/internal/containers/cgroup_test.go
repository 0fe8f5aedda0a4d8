package containers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const uid = "11111111-2222-3333-4444-555555555555"

func TestTreesAreFoundWithTheirNamesUnescaped(t *testing.T) {
	tests := map[string]struct {
		mountinfo string
		want      trees
	}{
		"pure": {
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
			trees{unified: []mount{{"/", "/sys/fs/cgroup"}}},
		},
		"hybrid": {
			"31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
				"31 30 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n" +
				"32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw\n",
			trees{unified: []mount{{"/", "/sys/fs/cgroup/unified"}}, freezer: []mount{{"/", "/sys/fs/cgroup/freezer"}}},
		},
		"part of the tree, escaped": {
			`33 30 0:28 /kube\040pods /mnt/a\134b rw - cgroup2 none rw`, trees{unified: []mount{{"/kube pods", `/mnt/a\b`}}},
		},
		"cut off": {"33 30 0:28\n\n34 30 0:28 / /x rw", trees{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readTrees(strings.NewReader(tt.mountinfo))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(trees{}, mount{})); diff != "" {
				t.Errorf("trees (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlaceIsThatInBothTrees(t *testing.T) {
	tests := map[string]struct {
		file string
		want place
	}{
		"pure":                {"0::/kubepods/pod1/c1\n", place{unified: "/u/kubepods/pod1/c1"}},
		"hybrid":              {"3:freezer:/a\n1:name=systemd:/b\n0::/c\n", place{"/u/c", "/a"}},
		"mounted together":    {"3:cpu,freezer:/a\n0::/c\n", place{"/u/c", "/a"}},
		"removed":             {"3:freezer:/a (deleted)\n0::/c (deleted)\n", place{"/u/c", "/a"}},
		"colon in it":         {"3:freezer:/a:0::b\n0::/x:0::y\n", place{"/u/x:0::y", "/a:0::b"}},
		"named like it":       {"3:name=freezer:/a\n0::/c\n", place{unified: "/u/c"}},
		"v1 only":             {"3:freezer:/a\n", place{freezer: "/a"}},
		"nothing of a cgroup": {"", place{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := (trees{unified: []mount{{"/", "/u"}}}).place(tt.file); got != tt.want {
				t.Errorf("place = %+v, want %+v", got, tt.want)
			}
		})
	}
	if got := (trees{}).place("0::/c\n"); got != (place{}) {
		t.Errorf("place in a tree that is not mounted = %+v", got)
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
			if got, shown := resolve(tt.mounts, tt.cgroup); !shown || got != tt.want {
				t.Errorf("resolve = %q, %v, want %q", got, shown, tt.want)
			}
		})
	}
	if got, shown := resolve([]mount{{"/other", "/mnt"}}, "/kubepods"); shown {
		t.Errorf("resolve of what no mount shows = %q", got)
	}
}
