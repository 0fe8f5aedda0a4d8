package podfiles_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
)

func TestFindListsTheMostVolatileFirst(t *testing.T) {
	n := newNode(t)
	n.memory(t, "empty-dir", "ram")
	n.volume(t, "empty-dir", "work")
	n.pod.Processes = []int{run(t, "shm", 0).pid()}
	size := resource.MustParse("1Mi")
	n.pod.Volumes = []corev1.Volume{
		{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "ram", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
			Medium: corev1.StorageMediumMemory, SizeLimit: &size,
		}}},
	}
	found := n.find(t)
	type row struct {
		Kind   evidence.PodSourceKind
		Name   string
		Memory bool
	}
	var got []row
	for _, one := range found.Sources {
		name := one.Name
		if one.Kind == evidence.PodSourceSharedMemory {
			name, _, _ = strings.Cut(name, "-")
		}
		got = append(got, row{one.Kind, name, one.Memory})
	}
	want := []row{
		{evidence.PodSourceSharedMemory, "memory/shm", true},
		{evidence.PodSourceMemoryVolume, "memory/emptydir-ram", true},
		{evidence.PodSourceLogs, "logs", false},
		{evidence.PodSourceTermination, "termination", false},
		{evidence.PodSourceVolume, "volumes/work", false},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if len(found.Gaps) != 0 {
		t.Errorf("gaps: %v", found.Gaps)
	}
	again := n.find(t)
	if diff := cmp.Diff(names(found), names(again)); diff != "" {
		t.Errorf("names are not stable:\n%s", diff)
	}
}

func names(found podfiles.Found) (list []string) {
	for _, one := range found.Sources {
		list = append(list, one.Name)
	}
	return list
}

func TestSourcesAreOpenedWhereTheyAre(t *testing.T) {
	n := newNode(t)
	must(t, put(filepath.Join(n.volume(t, "empty-dir", "work"), "file"), "content"))
	n.pod.Processes = []int{run(t, "shm", 0).pid()}
	found := n.find(t)
	for name, file := range map[string][2]string{
		"memory/shm": {"loot", secret}, "volumes/work": {"file", "content"}, "logs": {"app/0.log", "first"},
		"termination": {"app/1a2b3c4d", "said at the end"},
	} {
		opened, err := source(t, found, name).Open(t.Context())
		must(t, err)
		if got := read(t, filepath.Join(opened.Root(), file[0])); got != file[1] {
			t.Errorf("%s: %q", name, got)
		}
		// The archive opens a root that must not be a link.
		fd, err := unix.Open(opened.Root(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		must(t, err)
		must(t, unix.Close(fd))
		must(t, opened.Close())
		must(t, opened.Close())
	}
}

func TestASourceThatWasReplacedIsNotOpened(t *testing.T) {
	n := newNode(t)
	work := n.volume(t, "empty-dir", "work")
	found := n.find(t)
	must(t, os.Rename(work, work+"-old"))
	must(t, os.Mkdir(work, 0o777))
	if _, err := source(t, found, "volumes/work").Open(t.Context()); err == nil {
		t.Error("another folder was opened")
	}
	must(t, os.Remove(work))
	must(t, os.Symlink("/etc", work))
	if _, err := source(t, found, "volumes/work").Open(t.Context()); !errors.Is(err, unix.ELOOP) {
		t.Errorf("open of a link: %v, want ELOOP", err)
	}
}

func TestWhatASuspectPutsAtSharedMemoryIsNotFollowed(t *testing.T) {
	tests := map[string]struct {
		doing  string
		reason string
	}{
		"a link":                      {"link", podfiles.GapSharedMemory},
		"a file system of its own":    {"fuse", podfiles.GapSharedMemory},
		"one in the way":              {"fuse dev", podfiles.GapUntrusted},
		"the memory of a Secret":      {"bind", podfiles.GapSharedMemory},
		"memory that is not in sight": {"covered", podfiles.GapHidden},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			if strings.HasPrefix(test.doing, "fuse") {
				_, err := os.Stat("/dev/fuse")
				testneeds.That(t, err == nil, "no /dev/fuse")
			}
			token := n.memory(t, "secret", "token")
			must(t, put(token+"/key", secret))
			t.Setenv("BIND", token)
			n.pod.Processes = []int{run(t, test.doing, 0).pid()}
			n.pod.Volumes = []corev1.Volume{}
			found := n.find(t)
			if reasons(found)[test.reason] == 0 {
				t.Errorf("gaps: %v", found.Gaps)
			}
			for _, one := range found.Sources {
				if one.Kind != evidence.PodSourceSharedMemory && one.Kind != evidence.PodSourceMemoryMount {
					continue
				}
				opened, err := one.Open(t.Context())
				must(t, err)
				if _, err := os.Stat(filepath.Join(opened.Root(), "key")); err == nil {
					t.Errorf("the Secret is in source %s", one.Name)
				}
				must(t, opened.Close())
			}
		})
	}
}

func TestMemoryMountedElsewhereIsASource(t *testing.T) {
	n := newNode(t)
	n.pod.Processes = []int{run(t, "elsewhere", 0).pid()}
	found := n.find(t)
	one := source(t, found, "memory/mount")
	if one.Path != "/mnt" || one.Files < 2 {
		t.Errorf("source: %+v", one)
	}
	why := map[string]string{}
	for _, mount := range found.Mounts {
		why[string(mount.Path)] = mount.Source + mount.Why
	}
	if why["/mnt"] != one.Name || why["/srv"] != podfiles.WhyEmpty {
		t.Errorf("mounts: %v", why)
	}
	if !slices.Contains(slices.Collect(maps.Values(why)), podfiles.WhyNode) {
		t.Errorf("no mount is the node's: %v", why)
	}
}

func TestSharedMemoryOfTwoNamespacesIsOneSource(t *testing.T) {
	n := newNode(t)
	first := run(t, "shm twice", 0)
	second, err := strconv.Atoi(first.said[len(first.said)-1])
	must(t, err)
	n.pod.Processes = []int{first.pid(), second}
	found := n.find(t)
	count := 0
	for _, one := range found.Sources {
		if one.Kind == evidence.PodSourceSharedMemory {
			count++
			if len(one.MountNamespaces) != 2 {
				t.Errorf("namespaces: %v", one.MountNamespaces)
			}
		}
	}
	if count != 1 {
		t.Errorf("%d sources of shared memory: %v", count, names(found))
	}
}

func TestAPathThatIsTooLongHidesNothingElse(t *testing.T) {
	for doing, long := range map[string]string{"deep": "/mnt/aaa", "deep root": "/dev"} {
		t.Run(doing, func(t *testing.T) {
			n := newNode(t)
			n.pod.Processes, n.pod.Volumes = []int{run(t, doing, 0).pid()}, []corev1.Volume{}
			found := n.find(t)
			opened, err := source(t, found, "memory/shm").Open(t.Context())
			must(t, err)
			if got := read(t, filepath.Join(opened.Root(), "loot")); got != secret {
				t.Errorf("read %q", got)
			}
			must(t, opened.Close())
			if diff := cmp.Diff(map[string]int64{podfiles.GapPathTooLong: 1}, reasons(found)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s\n%.2000v", diff, found.Gaps)
			}
			for _, gap := range found.Gaps {
				if gap.Reason == podfiles.GapPathTooLong && !strings.HasPrefix(string(gap.Path), long) {
					t.Errorf("gap: %v", gap)
				}
			}
		})
	}
}

func TestWhatIsBeyondTheListThatIsReadIsNamed(t *testing.T) {
	for doing, want := range map[string]map[string]int64{
		"shm before the flood": {podfiles.GapPathTooLong: 3, podfiles.GapTooMany: 1},
		"shm after the flood":  {podfiles.GapPathTooLong: 3, podfiles.GapTooMany: 2},
	} {
		t.Run(doing, func(t *testing.T) {
			n := newNode(t)
			n.pod.Processes, n.pod.Volumes = []int{run(t, doing, 0).pid()}, []corev1.Volume{}
			found := n.find(t)
			if diff := cmp.Diff(want, reasons(found)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			there := slices.ContainsFunc(names(found), func(name string) bool { return strings.HasPrefix(name, "memory/shm") })
			named := slices.ContainsFunc(found.Gaps, func(gap evidence.PodGap) bool {
				return gap.Path == shm && gap.Reason == podfiles.GapTooMany
			})
			if there == named {
				t.Errorf("captured: %v, named: %v", there, named)
			}
		})
	}
}

func TestAFileOfMemoryThatIsThereAsAWholeIsNoGap(t *testing.T) {
	n := newNode(t)
	n.pod.Processes = []int{run(t, "files", 0).pid()}
	found := n.find(t)
	for _, mount := range found.Mounts {
		if mount.Path == "/mnt/on" && mount.Why != podfiles.WhyFile {
			t.Errorf("mount: %+v", mount)
		}
	}
	source(t, found, "memory/mount")
}

func TestALookThatTakesTooLongKeepsTheRest(t *testing.T) {
	n := newNode(t)
	n.volume(t, "empty-dir", "work")
	first := run(t, "shm twice", 0)
	second, err := strconv.Atoi(first.said[len(first.said)-1])
	must(t, err)
	n.pod.Processes = []int{first.pid(), second}
	found, err := podfiles.FindWithin(t.Context(), n.pod, n.roots, 0)
	must(t, err)
	if diff := cmp.Diff([]string{"logs", "termination", "volumes/work"}, names(found)); diff != "" {
		t.Errorf("sources (-want +got):\n%s", diff)
	}
	if reasons(found)[podfiles.GapTimeUsedUp] != 2 || reasons(found)[podfiles.GapUnreadable] != 0 {
		t.Errorf("gaps: %v", found.Gaps)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := podfiles.Find(ended, n.pod, n.roots); !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller's own time: %v", err)
	}
}

func TestARootOfItsOwnHidesNothing(t *testing.T) {
	n := newNode(t)
	n.pod.Processes = []int{run(t, "chroot", 0).pid()}
	opened, err := source(t, n.find(t), "memory/shm").Open(t.Context())
	must(t, err)
	if got := read(t, filepath.Join(opened.Root(), "loot")); got != secret {
		t.Errorf("read %q", got)
	}
	must(t, opened.Close())
}

func TestAProcessInTheNodesNamespaceIsAGap(t *testing.T) {
	n := newNode(t)
	n.pod.Processes = []int{os.Getpid(), 1 << 30}
	found := n.find(t)
	if reasons(found)[podfiles.GapNodeNamespace] != 1 || len(found.Mounts) != 0 {
		t.Errorf("gaps %v, mounts %v", found.Gaps, found.Mounts)
	}
}

func TestVolumesThatAreNotCapturedAreNamed(t *testing.T) {
	n := newNode(t)
	csi := n.volume(t, "csi", "pvc-1")
	must(t, put(csi+"/vol_data.json", `{"driverName":"disk.example.com","volumeHandle":"vol-7"}`))
	n.volume(t, "empty-dir", "seen-as-folder")
	must(t, os.Symlink("/etc", n.path("volumes/kubernetes.io~empty-dir/evil")))
	n.pod.Volumes = []corev1.Volume{
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/etc"}}},
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
		{Name: "share", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "10.0.0.1", Path: "/x"}}},
		{Name: "seen-as-folder", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
		{Name: "never-made", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	found := n.find(t)
	want := map[string]int64{podfiles.GapVolume: 3, podfiles.GapMemoryVolume: 1, podfiles.GapUnreadable: 2}
	if diff := cmp.Diff(want, reasons(found)); diff != "" {
		t.Errorf("gaps (-want +got):\n%s\n%v", diff, found.Gaps)
	}
	kinds := map[string]string{}
	for _, one := range found.Volumes {
		kinds[one.Name] = one.Kind
		if one.Name == "host" && string(one.Spec) != `{"path":"/etc"}` {
			t.Errorf("spec of host: %s", one.Spec)
		}
		if one.Name == "pvc-1" && (one.Driver != "disk.example.com" || one.Handle != "vol-7") {
			t.Errorf("CSI volume: %+v", one)
		}
	}
	wantKinds := map[string]string{
		"host": "hostPath", "data": "persistentVolumeClaim", "share": "nfs", "seen-as-folder": "emptyDir",
		"never-made": "emptyDir", "pvc-1": "kubernetes.io~csi", "evil": "kubernetes.io~empty-dir",
	}
	if diff := cmp.Diff(wantKinds, kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	for _, name := range names(found) {
		if strings.HasPrefix(name, "volumes/") {
			t.Errorf("source %s", name)
		}
	}
}

func TestWithoutASpecUnknownVolumesAreAGap(t *testing.T) {
	n := newNode(t)
	n.volume(t, "nfs", "share")
	if diff := cmp.Diff(map[string]int64{podfiles.GapVolume: 1, podfiles.GapVolumesUnknown: 1}, reasons(n.find(t))); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
}

func TestNamesThatLeadElsewhereAreRefused(t *testing.T) {
	for _, pod := range []podfiles.Pod{
		{Namespace: "..", Name: "web", UID: uid},
		{Namespace: "shop", Name: "../x", UID: uid},
		{Namespace: "shop", Name: "web", UID: ".."},
		{Namespace: "shop", Name: "web", UID: "a/b"},
		{},
	} {
		if _, err := podfiles.Find(t.Context(), pod, podfiles.Roots{}); !errors.Is(err, podfiles.ErrBadName) {
			t.Errorf("%+v: %v", pod, err)
		}
	}
}
