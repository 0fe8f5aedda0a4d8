package archive_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

// firstID of a pod in a user namespace, as the kubelet gives them out.
const firstID = 3 * 65536

// makeMapped mounts an overlay as the runtime does for a pod in a user namespace: the image keeps its ids on disk and is
// shown with the pod's, which the upper layer has on disk.
func makeMapped(t *testing.T, fill func(lower string)) *overlay {
	t.Helper()
	root := makeTmpfs(t)
	o := &overlay{filepath.Join(root, "lower"), filepath.Join(root, "upper"), filepath.Join(root, "merged")}
	mapped, work := filepath.Join(root, "mapped"), filepath.Join(root, "work")
	for _, folder := range []string{o.lower, o.upper, o.merged, mapped, work} {
		must(t, os.Mkdir(folder, 0o755))
	}
	must(t, os.Lchown(o.upper, firstID, firstID))
	fill(o.lower)
	mountMapped(t, o.lower, mapped)
	must(t, unix.Mount("overlay", o.merged, "overlay", 0, "lowerdir="+mapped+",upperdir="+o.upper+",workdir="+work+",metacopy=off"))
	t.Cleanup(func() { must(t, unix.Unmount(o.merged, unix.MNT_DETACH)) })
	return o
}

// mountMapped shows a folder at another place with the ids of the pod.
func mountMapped(t *testing.T, folder, at string) {
	t.Helper()
	pod := exec.Command("sleep", "60")
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: 65536}}
	pod.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids, Pdeathsig: unix.SIGKILL}
	must(t, pod.Start())
	namespace, err := unix.Open(fmt.Sprintf("/proc/%d/ns/user", pod.Process.Pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, errors.Join(err, pod.Process.Kill()))
	var killed *exec.ExitError
	if err := pod.Wait(); !errors.As(err, &killed) {
		t.Fatalf("the holder of the namespace ended with %v", err)
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, folder, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(t, err)
	must(t, unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(namespace)}))
	must(t, unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH))
	must(t, errors.Join(unix.Close(tree), unix.Close(namespace)))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

// makeUserPod is an overlay of a pod in a user namespace with the changes that its ids could hide.
func makeUserPod(t *testing.T) *overlay {
	t.Helper()
	o := makeMapped(t, func(lower string) {
		for _, name := range []string{"kept", "edited", "owned-and-edited", "attribute-only", "given-away", "moved-to-another-pod"} {
			corpus.WriteFile(t, filepath.Join(lower, name), "content of "+name)
		}
		for _, name := range []string{"kept", "owned-and-edited"} {
			must(t, os.Lchown(filepath.Join(lower, name), 1000, 2000))
		}
	})
	for _, name := range []string{"edited", "owned-and-edited"} {
		must(t, os.WriteFile(o.at(name), []byte("CONTENT of "+name), 0o644))
		corpus.Backdate(t, o.at(name))
	}
	must(t, unix.Setxattr(o.at("attribute-only"), "trusted.a", []byte("new"), 0))
	must(t, os.Lchown(o.at("given-away"), firstID+1, firstID))
	must(t, os.Lchown(o.at("moved-to-another-pod"), firstID+1, firstID+1))
	corpus.WriteFile(t, o.at("setcap"), "elf")
	must(t, os.Lchown(o.at("setcap"), firstID, firstID))
	// What setcap leaves in a user namespace: version 3, which names the namespace's root.
	owned := "\x01\x00\x00\x03" + corpus.Capability[4:] + "\x00\x00\x03\x00"
	must(t, unix.Setxattr(o.at("setcap"), "security.capability", []byte(owned), 0))
	return o
}

// TestUserNamespacePodKeepsItsIdsAndHidesNoEdit captures as the agent does: a view without a mapping, as the layers lie on
// disk, and the upper layer itself beside the image.
func TestUserNamespacePodKeepsItsIdsAndHidesNoEdit(t *testing.T) {
	o := makeUserPod(t)
	view := t.TempDir()
	must(t, unix.Mount("overlay", view, "overlay", unix.MS_RDONLY, "lowerdir="+o.upper+":"+o.lower))
	t.Cleanup(func() { must(t, unix.Unmount(view, unix.MNT_DETACH)) })
	wantIDs := map[string][2]uint32{
		".": {firstID, firstID}, "kept": {1000, 2000}, "edited": {firstID, firstID}, "owned-and-edited": {firstID + 1000, firstID + 2000},
		"attribute-only": {firstID, firstID}, "given-away": {firstID + 1, firstID}, "moved-to-another-pod": {firstID + 1, firstID + 1},
		"setcap": {firstID, firstID},
	}
	wantFlags := map[string]evidence.Flag{
		"edited": evidence.FlagSameMetadataOtherContent, "owned-and-edited": evidence.FlagSameMetadataOtherContent,
		"attribute-only": evidence.FlagSameAsLower,
	}
	for name, options := range map[string]archive.Options{"upper": {UpperLayer: true, Lower: o.lower}, "whole": {Upper: o.upper, Lower: o.lower}} {
		t.Run(name, func(t *testing.T) {
			root, wantIDs := view, maps.Clone(wantIDs)
			if options.UpperLayer {
				root = o.upper
				delete(wantIDs, "kept")
			}
			want := scan(t, root)
			got := capture(t, root, options)
			if len(got.gaps) > 0 {
				t.Errorf("gaps %+v", got.gaps)
			}
			if diff := cmp.Diff(want, scan(t, extract(t, got.data, "--zstd"))); diff != "" {
				t.Errorf("extracted by GNU tar (-want +got):\n%s", diff)
			}
			ids, flags := map[string][2]uint32{}, map[string]evidence.Flag{}
			for path, entry := range got.entries(t) {
				ids[path] = [2]uint32{entry.UID, entry.GID}
				for _, flag := range []evidence.Flag{evidence.FlagSameAsLower, evidence.FlagSameMetadataOtherContent} {
					if slices.Contains(entry.Flags, flag) {
						flags[path] = flag
					}
				}
			}
			if diff := cmp.Diff(wantIDs, ids); diff != "" {
				t.Errorf("ids (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantFlags, flags); diff != "" {
				t.Errorf("flags (-want +got):\n%s", diff)
			}
		})
	}
}
