package containers

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/google/go-cmp/cmp"
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

func TestNetworksAreThoseOfRunningSandboxesButTheNodes(t *testing.T) {
	denied := errors.New("denied")
	type answer struct {
		inode, started uint64
		err            error
	}
	node := answer{10, 1, nil}
	tests := map[string]struct {
		answers map[int]answer
		want    map[uint64]bool
		err     error
	}{
		"two":                  {map[int]answer{1: node, 2: {20, 5, nil}, 3: {30, 5, nil}}, map[uint64]bool{20: true, 30: true}, nil},
		"one for both":         {map[int]answer{1: node, 2: {20, 5, nil}, 3: {20, 5, nil}}, map[uint64]bool{20: true}, nil},
		"the node's":           {map[int]answer{1: node, 2: {10, 5, nil}, 3: {30, 5, nil}}, map[uint64]bool{30: true}, nil},
		"over":                 {map[int]answer{1: node, 2: {0, 0, fs.ErrNotExist}, 3: {0, 0, unix.ESRCH}}, map[uint64]bool{}, nil},
		"a later process":      {map[int]answer{1: node, 2: {20, 6, nil}, 3: {30, 5, nil}}, map[uint64]bool{30: true}, nil},
		"unreadable":           {map[int]answer{1: node, 2: {0, 0, denied}, 3: {30, 5, nil}}, nil, denied},
		"the node's is hidden": {map[int]answer{1: {0, 0, denied}, 2: {20, 5, nil}, 3: {30, 5, nil}}, nil, denied},
		"the node's is gone":   {map[int]answer{1: {0, 0, fs.ErrNotExist}, 2: {20, 5, nil}, 3: {30, 5, nil}}, nil, fs.ErrNotExist},
	}
	list := []described{
		{container: Container{ID: "s2", Process: 2, StartTime: 5}},
		{container: Container{ID: "s0"}},
		{container: Container{ID: "s3", Process: 3, StartTime: 5}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := networks(list, func(process int) (uint64, uint64, error) {
				at, known := tt.answers[process]
				if !known {
					t.Errorf("asked for process %d", process)
				}
				return at.inode, at.started, at.err
			})
			if !errors.Is(err, tt.err) {
				t.Errorf("networks: %v, want %v", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("networks (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOthersNetworksAreTheirSandboxes(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	const lostPod = "99999999-2222-3333-4444-555555555555"
	above, _ := makePod(t)
	pods := filepath.Join(filepath.Dir(above), "kubepods")
	lostFolder := filepath.Join(pods, "pod"+lostPod)
	for _, folder := range []string{pods, lostFolder, filepath.Join(lostFolder, "s3")} {
		makeFolder(t, folder)
	}
	own, other := run(t, unix.CLONE_NEWNET, "sleep", "60"), run(t, unix.CLONE_NEWNET, "sleep", "60")
	onNodes, inside, lost := run(t, 0, "sleep", "60"), run(t, unix.CLONE_NEWNET, "sleep", "60"), run(t, unix.CLONE_NEWNET, "sleep", "60")
	move(t, lost, filepath.Join(lostFolder, "s3"))
	node := &fake{}
	node.add("s1", uid, "", running(own))
	node.add("s2", "other", "", running(other))
	node.add("c2", "other", "web", running(inside))
	node.add("s3", lostPod, "", unanswered())
	node.add("s4", "host", "", running(onNodes))
	node.add("s5", "over", "", &fakeTask{status: containerd.Stopped})
	node.add("s6", "gone", "", nil)
	node.add("s7", "removed", "", unanswered())
	lister := &Lister{node}

	want := map[uint64]bool{}
	for _, process := range []int{other, lost} {
		inode, _, err := networkOf(process)
		must(t, err)
		want[inode] = true
	}
	got, err := lister.OthersNetworks(t.Context(), uid)
	must(t, err)
	if !maps.Equal(got, want) {
		t.Errorf("networks %v, want %v", got, want)
	}

	forged := filepath.Join(pods, "besteffort")
	for _, folder := range []string{forged, filepath.Join(forged, "pod"+lostPod), filepath.Join(forged, "pod"+lostPod, "s3")} {
		makeFolder(t, folder)
	}
	start(t, filepath.Join(forged, "pod"+lostPod, "s3"))
	if _, err := lister.OthersNetworks(t.Context(), uid); !errors.Is(err, errAmbiguous) || !strings.Contains(err.Error(), "s3") {
		t.Errorf("beside a forged one: %v", err)
	}
}
