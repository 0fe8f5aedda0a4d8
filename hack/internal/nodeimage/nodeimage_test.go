package nodeimage

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNewestTakesTheHighestPatchOfTheMinorRelease(t *testing.T) {
	cases := map[string]struct {
		tags []string
		want string
	}{
		"several":         {tags: []string{"v1.34.2", "v1.34.10", "v1.35.1", "v1.34.x", "latest"}, want: "v1.34.10"},
		"other minor":     {tags: []string{"v1.3.4", "v1.35.0"}},
		"nothing at all":  {},
		"only its zeroth": {tags: []string{"v1.34.0"}, want: "v1.34.0"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := newest(c.tags, "v1.34.4"); got != c.want {
				t.Errorf("newest = %q, want %q", got, c.want)
			}
		})
	}
}

func TestReferenceChangesWithEveryPart(t *testing.T) {
	plain := parts{rootfs: "/a/rootfs-1.tar", binaries: map[string]string{"etcd": "/a/etcd-1/etcd"}}
	others := map[string]parts{
		"root filesystem": {rootfs: "/a/rootfs-2.tar", binaries: plain.binaries},
		"program":         {rootfs: plain.rootfs, binaries: map[string]string{"etcd": "/a/etcd-2/etcd"}},
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) {
			if plain.reference() == other.reference() {
				t.Error("the same name for other contents")
			}
		})
	}
	moved := parts{rootfs: "/b/rootfs-1.tar", binaries: map[string]string{"etcd": "/b/etcd-1/etcd"}}
	if plain.reference() != moved.reference() {
		t.Error("the name depends on where the state folder is")
	}
}

func TestBaseSpecificationAddsTheHookAndTakesTheLimitsOut(t *testing.T) {
	got, err := baseSpecification([]byte(`{"process":{"cwd":"/","rlimits":[{"type":"RLIMIT_NOFILE"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "hooks": {
    "createContainer": [
      {
        "path": "/kind/bin/mount-product-files.sh"
      }
    ]
  },
  "process": {
    "cwd": "/"
  }
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("specification (-want +got):\n%s", diff)
	}
}

func TestWantedTakesWhatKubeProxyRuns(t *testing.T) {
	for name, want := range map[string]bool{
		"lib": true, "usr/lib/x86_64-linux-gnu/libc.so.6": true, "usr/lib/x86_64-linux-gnu/xtables/libxt_comment.so": true,
		"usr/sbin/iptables-restore": true, "usr/bin/python3": false, "usr/lib/systemd/systemd": false,
	} {
		if got := wanted(name); got != want {
			t.Errorf("wanted(%q) = %v", name, got)
		}
	}
}

func TestComponentIsTheLastElementWithoutItsTag(t *testing.T) {
	if got := component("registry.k8s.io/coredns/coredns:v1.12.1"); got != "coredns" {
		t.Errorf("component = %q", got)
	}
}
