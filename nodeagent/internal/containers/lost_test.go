package containers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/google/go-cmp/cmp"
)

func TestOnlyWhatTheRuntimeSaysStoppedDoesNotRun(t *testing.T) {
	tests := map[string]struct {
		process int
		ended   bool
		status  containerd.ProcessStatus
		want    Container
	}{
		"running":                        {7, false, containerd.Running, Container{Process: 7, StartTime: 9}},
		"created":                        {7, false, containerd.Created, Container{created: Stray{7, 9}}},
		"created, and the process ended": {7, true, containerd.Created, Container{}},
		"paused":                         {7, false, containerd.Paused, Container{Process: 7, StartTime: 9}},
		"unknown with a process":         {7, false, containerd.Unknown, Container{Process: 7, StartTime: 9}},
		"unknown, and the process ended": {7, true, containerd.Unknown, Container{lost: true}},
		"unknown without a process":      {0, true, containerd.Unknown, Container{lost: true}},
		"created without a process":      {0, true, containerd.Created, Container{}},
		"running without a process":      {0, true, containerd.Running, Container{lost: true}},
		"stopped":                        {7, true, containerd.Stopped, Container{}},
		"stopped without a process":      {0, true, containerd.Stopped, Container{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got Container
			got.judge(tt.process, 9, tt.ended, tt.status)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Container{})); diff != "" {
				t.Errorf("container (-want +got):\n%s", diff)
			}
		})
	}
}

func TestContainerThatWasCreatedDoesNotRunYet(t *testing.T) {
	node := &fake{}
	node.add("c1", uid, "web", &fakeTask{process: uint32(os.Getpid()), status: containerd.Created}) // #nosec G115 -- a pid
	lister := &Lister{node}
	pod, err := lister.Pod(t.Context(), uid)
	if err != nil || len(pod.Containers) != 1 || pod.Containers[0].Process != 0 || len(pod.Processes) != 0 {
		t.Errorf("Pod = %+v, %v", pod, err)
	}
	if one, err := lister.Container(t.Context(), "c1"); err != nil || one.Process != 0 {
		t.Errorf("Container = %+v, %v", one, err)
	}
}

func TestPodsFolderIsFoundByNameWhereAPodCanBe(t *testing.T) {
	underscored := strings.ReplaceAll(uid, "-", "_")
	const docker = "system.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
	tests := map[string]struct {
		folder string
		found  bool
	}{
		"cgroupfs, guaranteed":         {"kubepods/pod" + uid, true},
		"cgroupfs, burstable":          {"kubepods/burstable/pod" + uid, true},
		"below the kubelet's":          {"kubelet/kubepods/besteffort/pod" + uid, true},
		"systemd, guaranteed":          {"kubepods.slice/kubepods-pod" + underscored + ".slice", true},
		"systemd, besteffort":          {"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + underscored + ".slice", true},
		"node in a container":          {docker + "/kubelet-kubepods-besteffort-pod" + underscored + ".slice", true},
		"one level too deep":           {"x/" + docker + "/kubelet-kubepods-besteffort-pod" + underscored + ".slice", false},
		"not the kubelet's":            {"evil/pod" + uid, false},
		"in a service's":               {"system.slice/evil.service/kubepods/pod" + uid, false},
		"in another pod's":             {"kubepods/podother/kubepods/pod" + uid, false},
		"another pod's":                {"kubepods/podother", false},
		"in a folder of no such class": {"kubepods/evil/pod" + uid, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			folder := filepath.Join(root, tt.folder)
			must(t, os.MkdirAll(folder, 0o700))
			var want []string
			if tt.found {
				want = []string{folder}
				// One that was made in the pod's own folder is not looked at.
				must(t, os.MkdirAll(filepath.Join(folder, "kubepods/pod"+uid), 0o700))
			}
			mounted := trees{unified: []mount{{"/", root}, {"/", root}}}
			if got, err := mounted.podFolders(uid); err != nil || !slices.Equal(got, want) {
				t.Errorf("podFolders = %v, %v, want %v", got, err, want)
			}
			if got, err := mounted.podFolders(""); err != nil || got != nil {
				t.Errorf("podFolders of no pod = %v, %v", got, err)
			}
		})
	}
}

func TestLostContainerIsFoundByItsNameOrNamedInTheError(t *testing.T) {
	own := os.Getpid()
	const real, forged = "kubepods/pod" + uid, "kubepods/besteffort/pod" + uid
	// Above the highest id that a process can have, so it is over.
	const over = 1 << 23
	tests := map[string]struct {
		lists map[string][]int
		want  error
	}{
		"in its folder":               {map[string][]int{real + "/c1": {own, os.Getppid() + over}}, nil},
		"of the systemd driver":       {map[string][]int{real + "/cri-containerd-c1.scope": {own}}, nil},
		"below its folder":            {map[string][]int{real + "/c1": nil, real + "/c1/init.scope": {own}}, nil},
		"behind one that is over":     {map[string][]int{real + "/c1": {over}, real + "/c1/x": {own}}, nil},
		"beside an empty forged one":  {map[string][]int{real + "/c1": {own}, forged + "/c1": nil}, nil},
		"beside a forged one":         {map[string][]int{real + "/c1": {own}, forged + "/c1": {own}}, errAmbiguous},
		"nothing in its folder":       {map[string][]int{real + "/c1": nil}, errNoProcess},
		"only over":                   {map[string][]int{real + "/c1": {over}}, errNoProcess},
		"no folder of its name":       {map[string][]int{real + "/c2": {own}}, errNoProcess},
		"the folder of its pod alone": {map[string][]int{real: {own}}, errNoProcess},
		"nothing":                     {nil, errNoProcess},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for folder, list := range tt.lists {
				must(t, os.MkdirAll(filepath.Join(root, folder), 0o700))
				lines := strings.Trim(strings.ReplaceAll(fmt.Sprintln(list), " ", "\n"), "[]\n")
				must(t, os.WriteFile(filepath.Join(root, folder, "cgroup.procs"), []byte(lines), 0o600))
			}
			pod := Pod{UID: uid, Containers: []Container{{ID: "c0", Process: 1, StartTime: 2}, {ID: "c1", lost: true}}}
			err := pod.seek(trees{unified: []mount{{"/", root}}})
			if !errors.Is(err, tt.want) || (err != nil && !strings.Contains(err.Error(), "container c1 ")) {
				t.Errorf("seek: %v, want %v", err, tt.want)
			}
			want := Container{ID: "c1", lost: true}
			if tt.want == nil {
				want.Process, want.StartTime = own, started(t, own)
			}
			if diff := cmp.Diff([]Container{{ID: "c0", Process: 1, StartTime: 2}, want}, pod.Containers, cmp.AllowUnexported(Container{})); diff != "" {
				t.Errorf("containers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreadableTreeIsNoProofThatNothingRuns(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	pod := Pod{UID: uid, Sandboxes: []Container{{ID: "s1", lost: true}}}
	err := pod.seek(trees{unified: []mount{{"/", filepath.Join(root, "file")}}})
	if err == nil || errors.Is(err, errNoProcess) {
		t.Errorf("seek: %v", err)
	}
}

func TestPodWhoseShimDoesNotAnswerRuns(t *testing.T) {
	if !onOwnNode(t) {
		return
	}
	above, _ := makePod(t)
	pods := filepath.Join(filepath.Dir(above), "kubepods")
	pod := filepath.Join(pods, "pod"+uid)
	for _, folder := range []string{pods, pod, filepath.Join(pod, "s1"), filepath.Join(pod, "c1"), filepath.Join(pod, "other")} {
		makeFolder(t, folder)
	}
	node := &fake{}
	node.add("s1", uid, "", unanswered())
	node.add("c1", uid, "web", unanswered())
	node.add("c2", uid, "over", &fakeTask{status: containerd.Stopped})
	node.add("c3", uid, "gone", nil)
	node.add("s9", "other", "", running(1))
	lister := &Lister{node}

	if got, err := lister.Pod(t.Context(), uid); err == nil || !strings.Contains(err.Error(), "container s1 ") {
		t.Errorf("without a process: %+v, %v", got, err)
	}
	all := []int{
		start(t, filepath.Join(pod, "s1")), start(t, filepath.Join(pod, "c1")),
		start(t, filepath.Join(pod, "c1")), start(t, filepath.Join(pod, "other")),
	}
	got, err := lister.Pod(t.Context(), uid)
	must(t, err)
	if one, err := lister.Container(t.Context(), "c1"); err != nil || one.Process != all[1] || one.Cgroup != filepath.Join(pod, "c1") {
		t.Errorf("Container = %+v, %v", one, err)
	}
	first := func(id string, process int) Container {
		return Container{ID: id, Process: process, StartTime: started(t, process), Cgroup: filepath.Join(pod, id), lost: true}
	}
	web := first("c1", all[1])
	web.Name = "web"
	want := Pod{
		UID: uid, Cgroup: pod, Processes: all, Sandboxes: []Container{first("s1", all[0])},
		Containers: []Container{web, {ID: "c2", Name: "over"}, {ID: "c3", Name: "gone"}},
	}
	slices.Sort(want.Processes)
	slices.SortFunc(got.Containers, func(a, b Container) int { return strings.Compare(a.ID, b.ID) })
	for i := range got.Containers { // a v1 freezer, where there is one, shows the processes at its root
		got.Containers[i].freezer = ""
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Container{})); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}
}
