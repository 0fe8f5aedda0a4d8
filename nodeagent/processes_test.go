package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/containers"
	"ugallu.io/forensics/nodeagent/internal/freeze"
)

// cgroup is a container's folder whose events say what they are given.
func cgroup(t *testing.T, events string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "cgroup.events"), []byte(events), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestPodStandsStillOnlyWithAllOfItsContainers(t *testing.T) {
	const stands, runs, empty = "populated 1\nfrozen 1\n", "populated 1\nfrozen 0\n", "populated 0\nfrozen 0\n"
	web := containers.Container{ID: "web", Process: 10, Cgroup: cgroup(t, stands)}
	ended := containers.Container{ID: "ended"}
	with := func(id string, process int, events string) []containers.Container {
		return []containers.Container{web, ended, {ID: id, Process: process, Cgroup: cgroup(t, events)}}
	}
	away := errors.New("the runtime is away")
	// Each look is at the next list; the last is looked at again.
	tests := map[string]struct {
		looks    [][]containers.Container
		listErr  error
		strays   []containers.Stray
		strayErr error
		// gone from the API server, which else says in which pid namespace it is.
		gone, hostPID, sharing bool
		want                   []bool
	}{
		"all frozen":                  {looks: [][]containers.Container{{web, ended}}, want: []bool{false, false}},
		"a sidecar runs":              {looks: [][]containers.Container{with("side", 11, runs)}, want: []bool{true, true}},
		"a sidecar runs elsewhere":    {looks: [][]containers.Container{with("side", 11, empty)}, want: []bool{true, true}},
		"a sidecar is not started":    {looks: [][]containers.Container{with("side", 0, runs)}, want: []bool{false}},
		"a newcomer runs":             {looks: [][]containers.Container{{web}, with("new", 12, runs)}, want: []bool{false, true, true}},
		"a newcomer is frozen":        {looks: [][]containers.Container{{web}, with("new", 12, stands)}, want: []bool{false, true, false}},
		"a container is started":      {looks: [][]containers.Container{with("new", 0, stands), with("new", 12, stands)}, want: []bool{false, true, false}},
		"a container ends":            {looks: [][]containers.Container{{web, ended}, {ended}}, want: []bool{false, false}},
		"an escaped process runs":     {looks: [][]containers.Container{{web}}, strays: []containers.Stray{{PID: 13}}, want: []bool{true}},
		"strays cannot be told":       {looks: [][]containers.Container{{web}}, strayErr: containers.ErrSharedNamespace, want: []bool{true}},
		"containers cannot be told":   {listErr: away, want: []bool{true}},
		"in the node's pid namespace": {looks: [][]containers.Container{{ended}}, hostPID: true, want: []bool{true, true}},
		"in the sandbox's":            {looks: [][]containers.Container{{ended}}, sharing: true, want: []bool{true, true}},
		"may reach the sandbox's own": {looks: [][]containers.Container{{web}}, strayErr: containers.ErrSandboxJoined, want: []bool{true}},
		"gone, and nobody saw it":     {looks: [][]containers.Container{{ended}}, gone: true, want: []bool{true, true}},
		"gone, and seen to be apart":  {looks: [][]containers.Container{{web}, {ended}}, gone: true, want: []bool{false, false}},
		"gone, and seen not to be":    {looks: [][]containers.Container{{web}}, strayErr: containers.ErrSharedNamespace, gone: true, want: []bool{true}},
		"there, and nothing of it is": {looks: [][]containers.Container{{ended}}, want: []bool{false, false}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			live := &corev1.Pod{Spec: corev1.PodSpec{HostPID: tt.hostPID, ShareProcessNamespace: &tt.sharing}}
			if tt.gone {
				live = nil
			}
			still := captureParts{freezer: freeze.New(v1alpha1.FreezeCgroupV2)}.standstill("uid", live)
			still.strays = func(containers.Pod) ([]containers.Stray, error) { return tt.strays, tt.strayErr }
			looks, lists := 0, 0
			still.pod = func(context.Context) (containers.Pod, error) {
				lists++
				if tt.listErr != nil {
					return containers.Pod{}, tt.listErr
				}
				return containers.Pod{Containers: tt.looks[min(looks, len(tt.looks)-1)]}, nil
			}
			if tt.listErr == nil {
				still.tell(containers.Pod{Containers: tt.looks[0]}, live)
			}
			for i, want := range tt.want {
				looks = i
				if got := still.run(); got != want {
					t.Errorf("look %d: runs %t, want %t", i+1, got, want)
				}
			}
			if lists != len(tt.want) {
				t.Errorf("%d lists of the pod for %d looks", lists, len(tt.want))
			}
		})
	}
}
