package containers

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	"golang.org/x/sys/unix"
)

func TestFilterOfOthersMatchesTheirSandboxesOnly(t *testing.T) {
	for _, without := range []string{uid, "", `x,labels."a"==b`, `"x`, "x|y", "ü"} {
		filter, err := filters.Parse(othersFilter(without))
		if err != nil {
			t.Errorf("filter for %q: %v", without, err)
			continue
		}
		for _, kind := range []string{kindSandbox, "container", ""} {
			for _, of := range []string{uid, "x", without} {
				got := filter.Match(labelled(map[string]string{labelKind: kind, labelPodUID: of}))
				if want := kind == kindSandbox && of != without; got != want {
					t.Errorf("filter for %q matches %q of %q: %v", without, kind, of, got)
				}
			}
		}
	}
}

// mounted mounts the network namespace of a process at a path.
func mounted(t *testing.T, process int, path string) {
	t.Helper()
	must(t, os.WriteFile(path, nil, 0o600))
	must(t, unix.Mount(namespaceFile(process, "net"), path, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(path, 0)) })
}

func TestOthersNetworksAreThoseTheirSandboxesWereMadeIn(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	own, other := run(t, unix.CLONE_NEWNET, "sleep", "60"), run(t, unix.CLONE_NEWNET, "sleep", "60")
	mounted(t, own, at("own"))
	mounted(t, other, at("other"))
	must(t, os.Symlink(folder, at("link")))
	must(t, os.WriteFile(at("down"), nil, 0o600))
	node := &fake{}
	node.add("s1", uid, "", running(own))
	node.network(at("own"))
	// Its process joined this pod's.
	node.add("s2", "other", "", running(own))
	node.network(at("link/other"))
	node.add("c2", "other", "web", running(own))
	node.add("s3", "host", "", running(own))
	node.specify(`{"linux":{"namespaces":[{"type":"pid"}]}}`)
	node.add("s4", "removed", "", unanswered())
	node.network(at("removed"))
	var stat unix.Stat_t
	must(t, unix.Stat(namespaceFile(other, "net"), &stat))
	want := map[uint64]bool{stat.Ino: true}
	lister := &Lister{node}
	got, err := lister.OthersNetworks(t.Context(), uid)
	must(t, err)
	if !maps.Equal(got, want) {
		t.Errorf("networks %v, want %v", got, want)
	}
	for name, spec := range map[string]string{
		"no JSON":          "{",
		"no path":          `{"linux":{"namespaces":[{"type":"network"}]}}`,
		"not mounted":      `{"linux":{"namespaces":[{"type":"network","path":"` + at("down") + `"}]}}`,
		"namespaces of no": `{"linux":{"namespaces":{}}}`,
		"a path of no":     `{"linux":{"namespaces":[{"type":"network","path":"` + at("other") + `/below"}]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			beside := &fake{list: slices.Clone(node.list)}
			beside.add("s9", "unknown", "", nil)
			beside.specify(spec)
			got, err := (&Lister{beside}).OthersNetworks(t.Context(), uid)
			if err == nil || !strings.Contains(err.Error(), "s9") || !maps.Equal(got, want) {
				t.Errorf("beside it: %v, %v", got, err)
			}
		})
	}
	node.add("s9", "unknown", "", nil)
	if _, err := lister.OthersNetworks(t.Context(), uid); !errors.Is(err, errNoSpecification) {
		t.Errorf("beside one without a specification: %v", err)
	}
}

func TestPodTellsTheNetworkOfItsSandbox(t *testing.T) {
	node := &fake{}
	node.add("s1", uid, "", nil)
	node.network("/var/run/netns/cni-1")
	node.add("s0", uid, "", nil)
	node.add("c1", uid, "web", nil)
	node.network("/var/run/netns/cni-9")
	pod, err := (&Lister{node}).Pod(t.Context(), uid)
	must(t, err)
	got := []string{pod.Sandboxes[0].Network, pod.Sandboxes[1].Network, pod.Containers[0].Network}
	if want := []string{"/var/run/netns/cni-1", "", ""}; !slices.Equal(got, want) {
		t.Errorf("networks %q, want %q", got, want)
	}
}

func TestNetworksAreThoseOfTheSandboxThatRuns(t *testing.T) {
	began := time.Now()
	dead, alive, hosts := Container{Network: "/dead", CreatedAt: began}, Container{Network: "/alive", Process: 1}, Container{Process: 1}
	older := Container{Network: "/older", CreatedAt: began.Add(-time.Second)}
	for name, tt := range map[string]struct {
		sandboxes []Container
		want      []string
	}{
		"none":              {nil, nil},
		"one":               {[]Container{alive}, []string{"/alive"}},
		"beside a dead one": {[]Container{dead, alive}, []string{"/alive"}},
		"dead":              {[]Container{older, dead, older}, []string{"/dead"}},
		"the node's":        {[]Container{dead, hosts}, nil},
	} {
		if got := (Pod{Sandboxes: tt.sandboxes}).Networks(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
