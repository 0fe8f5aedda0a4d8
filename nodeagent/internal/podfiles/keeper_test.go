package podfiles_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/podfiles"
)

func newKeeper(t *testing.T) *podfiles.Keeper {
	t.Helper()
	k := &podfiles.Keeper{Folder: filepath.Join(t.TempDir(), "kept")}
	t.Cleanup(func() {
		must(t, k.Collect(context.Background(), func(string) bool { return false }))
		if err := unix.Unmount(k.Folder, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Error(err)
		}
	})
	return k
}

// wantKept reads what is kept by a keeper that did not make it.
func wantKept(t *testing.T, k *podfiles.Keeper, kept podfiles.Kept, file, content string) {
	t.Helper()
	again := *k
	opened, err := again.Open(t.Context(), kept)
	must(t, err)
	if got := read(t, filepath.Join(opened.Root(), file)); got != content {
		t.Errorf("kept %q", got)
	}
	must(t, opened.Close())
}

func TestMemoryOutlivesTheProcessAndItsNamespace(t *testing.T) {
	for name, flags := range map[string]uintptr{"root": 0, "user namespace": unix.CLONE_NEWUSER} {
		t.Run(name, func(t *testing.T) {
			n, k := newNode(t), newKeeper(t)
			suspect := run(t, "shm", flags)
			n.pod.Processes = []int{suspect.pid()}
			one := source(t, n.find(t), "memory/shm")
			held, err := k.Clone(t.Context(), one)
			must(t, err)
			must(t, held.Close())
			suspect.end(t)
			if _, err := one.Open(t.Context()); err == nil {
				t.Error("the source is still there without its namespace")
			}
			wantKept(t, k, podfiles.Kept{PodUID: uid, Source: one.Name}, "loot", secret)
			// A second call finds it, though the source is gone.
			held, err = k.Clone(t.Context(), one)
			must(t, err)
			must(t, held.Close())
		})
	}
}

func TestAMemoryVolumeOutlivesItsUnmount(t *testing.T) {
	n, k := newNode(t), newKeeper(t)
	ram := n.memory(t, "empty-dir", "ram")
	must(t, put(ram+"/loot", secret))
	one := source(t, n.find(t), "memory/emptydir-ram")
	held, err := k.Clone(t.Context(), one)
	must(t, err)
	must(t, unix.Unmount(ram, 0))
	if got := read(t, filepath.Join(held.Root(), "loot")); got != secret {
		t.Errorf("read %q", got)
	}
	must(t, held.Close())
	kept := podfiles.Kept{PodUID: uid, Source: one.Name}
	wantKept(t, k, kept, "loot", secret)
	list, err := k.List(t.Context())
	must(t, err)
	if diff := cmp.Diff([]podfiles.Kept{kept}, list); diff != "" {
		t.Error(diff)
	}
	must(t, k.Collect(t.Context(), func(podUID string) bool { return podUID == uid }))
	wantKept(t, k, kept, "loot", secret)
	must(t, k.Collect(t.Context(), func(string) bool { return false }))
	if _, err := k.Open(t.Context(), kept); !errors.Is(err, podfiles.ErrNotKept) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the release: %v", err)
	}
	if _, err := os.Stat(filepath.Join(k.Folder, uid)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pod's folder: %v", err)
	}
	must(t, k.Release(t.Context(), uid))
}

func TestACloneAltersNothing(t *testing.T) {
	n, k := newNode(t), newKeeper(t)
	ram := n.memory(t, "empty-dir", "ram")
	must(t, put(ram+"/file", "content"))
	must(t, os.Chmod(ram+"/file", 0o755))
	must(t, unix.Mknod(ram+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	// An access time that relatime would renew.
	past := []unix.Timespec{{Sec: 1_000_000}, {Sec: 2_000_000}}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, ram+"/file", past, 0))
	held, err := k.Clone(t.Context(), source(t, n.find(t), "memory/emptydir-ram"))
	must(t, err)
	file := filepath.Join(held.Root(), "file")
	if got := read(t, file); got != "content" {
		t.Errorf("read %q", got)
	}
	var stat unix.Stat_t
	must(t, unix.Stat(ram+"/file", &stat))
	if stat.Atim.Sec != 1_000_000 {
		t.Errorf("access time is %d", stat.Atim.Sec)
	}
	if err := put(filepath.Join(held.Root(), "new"), ""); !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v, want EROFS", err)
	}
	if _, err := os.Open(filepath.Join(held.Root(), "null")); !errors.Is(err, unix.EACCES) {
		t.Errorf("open a device: %v, want EACCES", err)
	}
	if err := unix.Faccessat2(unix.AT_FDCWD, file, unix.X_OK, 0); !errors.Is(err, unix.EACCES) {
		t.Errorf("execute: %v, want EACCES", err)
	}
	// The pod's own mount is as it was.
	must(t, put(ram+"/new", "more"))
	must(t, held.Close())
}

func TestTheNodesNamespaceKeepsWhatTheAgentsWouldLose(t *testing.T) {
	n := newNode(t)
	node := run(t, "idle", 0)
	folder := t.TempDir()
	k := &podfiles.Keeper{Folder: filepath.Join(folder, "kept"), Namespace: fmt.Sprintf("/proc/%d/ns/mnt", node.pid())}
	suspect := run(t, "shm", 0)
	n.pod.Processes = []int{suspect.pid()}
	one := source(t, n.find(t), "memory/shm")
	held, err := k.Clone(t.Context(), one)
	must(t, err)
	must(t, held.Close())
	suspect.end(t)
	kept := podfiles.Kept{PodUID: uid, Source: one.Name}
	wantKept(t, k, kept, "loot", secret)
	own := &podfiles.Keeper{Folder: k.Folder}
	if list, err := own.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("in this process's namespace: %v, %v", list, err)
	}
	must(t, k.Release(t.Context(), uid))
	if list, err := k.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("after the release: %v, %v", list, err)
	}
}

func TestOnlyMemoryIsCloned(t *testing.T) {
	n, k := newNode(t), newKeeper(t)
	n.volume(t, "empty-dir", "work")
	if _, err := k.Clone(t.Context(), source(t, n.find(t), "volumes/work")); !errors.Is(err, podfiles.ErrNotMemory) {
		t.Errorf("clone of a disk: %v", err)
	}
}

func TestEnteringANamespaceLeavesNoThreadInIt(t *testing.T) {
	n := newNode(t)
	n.pod.Processes = []int{run(t, "shm", 0).pid()}
	for range 200 {
		n.find(t)
	}
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	must(t, err)
	threads, err := filepath.Glob("/proc/self/task/*/ns/mnt")
	must(t, err)
	for _, thread := range threads {
		// A thread that is about to end may be gone by now.
		if there, err := os.Readlink(thread); err == nil && there != own {
			ended(t, thread, own)
		}
	}
}

// ended waits for a thread that has left its work to be gone.
func ended(t *testing.T, thread, own string) {
	t.Helper()
	for range 1000 {
		if there, err := os.Readlink(thread); err != nil || there == own {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%s is still in another mount namespace", thread)
}
