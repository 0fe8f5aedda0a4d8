package podfiles

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

const sharedMemory = "/dev/shm"

// maxRecordedMounts in all mount namespaces of a pod: copies of a namespace cost a pod nothing.
const maxRecordedMounts = 4096

// Why a memory mount is no source, and no gap either.
const (
	// WhyEmpty: there is nothing in it.
	WhyEmpty = "Empty"
	// WhyNode: the node has it mounted, too, so it is a volume, a Secret or the node's own; Volumes says more.
	WhyNode = "Node"
	// WhyFile: it is one file of a file system that the namespace has as a whole as well. So the runtime hides files of
	// /proc below the container's /dev/null.
	WhyFile = "File"
)

// scan looks at the memory of one mount namespace.
func (f *finder) scan(ctx context.Context, s *scene, in namespace) error {
	shared := f.sharedMemory(s)
	if s.cut != nil {
		f.gaps.add(in.label(), GapTooMany, s.cut)
	}
	for i, one := range s.memory {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%d of %d mounts of memory were not looked at: %w", len(s.memory)-i, len(s.memory), err)
		}
		if f.bytes += one.bytes; len(f.found.Mounts) >= maxRecordedMounts || f.bytes > maxPathBytes {
			f.gaps.add(in.label(), GapTooMany, fmt.Errorf("%d of %d mounts of memory were not looked at: more than %d in all, or %d bytes of paths",
				len(s.memory)-i, len(s.memory), maxRecordedMounts, maxPathBytes))
			return nil
		}
		record := evidence.PodMemoryMount{
			MountNamespace: in.inode, MountID: one.id, Path: evidence.Text(one.point), Root: evidence.Text(one.root),
			Filesystem: one.fsType, Device: one.device, ReadOnly: one.readOnly,
		}
		// What the node has is a finding at /dev/shm only, and there only on top.
		if refused := f.refuse(one); refused == "" {
			record.Source, record.Why = f.judge(ctx, s, in, one)
		} else if record.Why = WhyNode; one.id == shared {
			record.Why = GapSharedMemory
			f.gaps.add(one.point, GapSharedMemory, errors.New(refused))
		}
		f.found.Mounts = append(f.found.Mounts, record)
	}
	return nil
}

// judge returns the key of the source that holds a mount, or why none does.
func (f *finder) judge(ctx context.Context, s *scene, in namespace, one mount) (source, why string) {
	if one.cut {
		// What would be kept of it is as long in the node's list of mounts.
		f.gaps.add(one.point, GapPathTooLong, fmt.Errorf("a path of mount %d is recorded by its beginning, and nothing in the mount is read", one.id))
		return "", GapPathTooLong
	}
	fd, at, err := s.folder(one.point)
	if errors.Is(err, unix.ENOTDIR) && f.whole(ctx, s, one.device) {
		return "", WhyFile
	}
	if err != nil {
		f.gaps.add(one.point, reason(err), err)
		return "", reason(err)
	}
	defer f.close(fd, one.point)
	if at != one.id {
		f.gaps.add(one.point, GapHidden, fmt.Errorf("%s %s is mounted below something else", one.fsType, one.device))
		return "", GapHidden
	}
	stat, ok, err := s.inMemory(fd, at)
	if err == nil && !ok {
		err = errReplaced
	}
	if err != nil {
		f.gaps.add(one.point, reason(err), err)
		return "", reason(err)
	}
	return f.keep(in, one, place{fd, at, one.point}, &stat)
}

// whole says whether the root of a file system is mounted in the namespace, and to be seen: false when time is up before
// that is found.
func (f *finder) whole(ctx context.Context, s *scene, device string) bool {
	if whole, ok := s.wholes[device]; ok {
		return whole
	}
	for _, one := range s.memory {
		if ctx.Err() != nil {
			return false
		}
		if one.device == device && one.root == "/" && !one.cut && f.seen(s, one) {
			s.wholes[device] = true
			return true
		}
	}
	s.wholes[device] = false
	return false
}

// seen says whether a path leads to a mount.
func (f *finder) seen(s *scene, one mount) bool {
	fd, at, err := s.folder(one.point)
	if err != nil {
		return false
	}
	f.close(fd, one.point)
	return at == one.id
}

// refuse says why a mount is not the pod's alone: empty when it is. The runtime mounts the /dev/shm of a sandbox on the
// node as well, in a folder of that name; anything else that the node has, too, may be a Secret.
func (f *finder) refuse(one mount) string {
	for _, point := range f.node[one.device] {
		switch {
		case one.point != sharedMemory:
			return "the node has it, too"
		case point == sharedMemory:
			return "it is the node's own"
		case filepath.Base(point) != "shm" || strings.HasPrefix(point, f.found.roots.Kubelet+"/"):
			return fmt.Sprintf("the node has it mounted at %q", point)
		}
	}
	return ""
}

// keep remembers a mount as a source, once for all namespaces that have it.
func (f *finder) keep(in namespace, one mount, p place, stat *unix.Stat_t) (source, why string) {
	kind := evidence.PodSourceMemoryMount
	if one.point == sharedMemory {
		kind = evidence.PodSourceSharedMemory
	}
	id := key(device(stat), stat.Ino)
	known, ok := f.memory[id]
	if !ok {
		if empty, err := isEmpty(p.fd); err != nil {
			f.gaps.add(one.point, GapUnreadable, err)
			return "", GapUnreadable
		} else if empty && kind != evidence.PodSourceSharedMemory {
			return "", WhyEmpty
		}
		known = &Source{
			PodSource: evidence.PodSource{
				Kind: kind, Path: evidence.Text(one.point), Memory: true, Filesystem: one.fsType, Device: device(stat),
			},
			PodUID: f.found.Pod.UID, inode: stat.Ino, namespace: in,
		}
		known.UsedBytes, known.Files = f.usage(p)
		f.memory[id] = known
	}
	known.MountNamespaces = addOnce(known.MountNamespaces, in.inode)
	if kind == evidence.PodSourceSharedMemory && known.Kind != kind {
		known.Kind, known.Path, known.namespace = kind, evidence.Text(one.point), in
	}
	return id, ""
}

// usage is what a file system in memory counts.
func (f *finder) usage(p place) (used, files int64) {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(p.fd, &stat); err != nil {
		f.gaps.add(p.path, GapUnreadable, fmt.Errorf("look at the file system: %w", err))
		return 0, 0
	}
	// #nosec G115 -- a file system in memory has fewer than 2^63 of either
	return int64(stat.Blocks-stat.Bfree) * stat.Bsize, int64(stat.Files - stat.Ffree)
}

// sharedMemory returns the mount that /dev/shm is on, 0 when there is none, and names one that is no memory: a link, or
// something else that is mounted there.
func (f *finder) sharedMemory(s *scene) int {
	fd, at, err := s.folder(sharedMemory)
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
		f.gaps.add(sharedMemory, GapSharedMemory, fmt.Errorf("is a link or no folder: %w", err))
		return 0
	case err != nil:
		f.gaps.add(sharedMemory, reason(err), err)
		return 0
	}
	defer f.close(fd, sharedMemory)
	root, err := s.mountOf(s.root)
	fsType, known := s.fsTypes[at]
	switch {
	case err != nil:
		f.gaps.add(sharedMemory, GapUnreadable, err)
	case at == root || inMemory(fsType):
		// A folder of the root filesystem comes with that; memory is looked at with the other mounts.
	case !known:
		f.gaps.add(sharedMemory, GapTooMany, errors.New("what is mounted there is not in the part of the list of mounts that was read"))
	default:
		f.gaps.add(sharedMemory, GapSharedMemory, fmt.Errorf("something else is mounted there: %q", fsType))
	}
	return at
}

func addOnce(list []uint64, one uint64) []uint64 {
	for _, known := range list {
		if known == one {
			return list
		}
	}
	return append(list, one)
}
