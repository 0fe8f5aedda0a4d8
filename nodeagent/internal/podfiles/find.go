package podfiles

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// Found is what of a pod is on this node.
type Found struct {
	Pod Pod
	// Sources to archive, the most volatile first.
	Sources []Source
	// Mounts of memory in the pod's mount namespaces, also those that no source holds.
	Mounts  []evidence.PodMemoryMount
	Volumes []evidence.PodVolume
	Gaps    []evidence.PodGap

	roots Roots
	// described are the volumes whose files Describe lists.
	described []describedVolume
}

// describedVolume is a volume whose files are listed without their content.
type describedVolume struct {
	name, plugin, folder string
}

// Source is a folder to archive.
type Source struct {
	evidence.PodSource
	// PodUID is whose it is.
	PodUID string
	// inode of the folder on its device.
	inode uint64
	// namespace that Path starts in; the zero value is this process's own.
	namespace namespace
}

// finder is one call of Find.
type finder struct {
	found *Found
	gaps  gaps
	// memory by device and inode of the folder.
	memory map[string]*Source
	node   nodeMounts
	// bytes of the paths in Mounts.
	bytes int
}

// Find lists what belongs to the pod on this node. Nothing that the pod could have made is followed or read, and no file
// system is asked that a process or a server may answer for. What cannot be looked at is a gap; the errors are ErrBadName
// and those of ctx.
//
// Names of sources stay the same as long as what they stand for exists, and are unique in a pod.
func Find(ctx context.Context, pod Pod, roots Roots) (Found, error) {
	return find(ctx, pod, roots, memoryTime)
}

// memoryTime bounds the look for memory in all mount namespaces of a pod, which takes milliseconds unless a process of the
// pod made it long. A hold of ten seconds leaves as much for the clones.
const memoryTime = 5 * time.Second

func find(ctx context.Context, pod Pod, roots Roots, within time.Duration) (Found, error) {
	if err := pod.check(); err != nil {
		return Found{}, err
	}
	f := &finder{
		memory: map[string]*Source{},
		found:  &Found{Pod: pod, roots: resolved(roots.withDefaults())},
	}
	if err := f.mountNamespaces(ctx, within); err != nil {
		return Found{}, err
	}
	for _, source := range f.memory {
		f.found.Sources = append(f.found.Sources, *source)
	}
	err := here(ctx, func(s *scene) error {
		f.volumes(s)
		f.folder(s, pod.logs(f.found.roots), PodLogs, evidence.PodSourceLogs)
		f.folder(s, filepath.Join(pod.folder(f.found.roots), "containers"), PodTermination, evidence.PodSourceTermination)
		return nil
	})
	if err != nil {
		f.gaps.add(f.found.roots.Kubelet, GapUnreadable, err)
	}
	slices.SortFunc(f.found.Sources, func(a, b Source) int {
		if order := rank(a.Kind) - rank(b.Kind); order != 0 {
			return order
		}
		return strings.Compare(a.Name, b.Name)
	})
	f.name()
	f.found.Gaps = f.gaps
	return *f.found, ctx.Err()
}

// Names of the sources that a pod has one of.
const (
	PodLogs        = "logs"
	PodTermination = "termination"
)

// rank orders kinds by how soon what they hold may be gone.
func rank(kind evidence.PodSourceKind) int {
	return slices.Index([]evidence.PodSourceKind{
		evidence.PodSourceSharedMemory, evidence.PodSourceMemoryMount, evidence.PodSourceMemoryVolume,
		evidence.PodSourceLogs, evidence.PodSourceTermination, evidence.PodSourceVolume,
	}, kind)
}

// resolved follows links in the configured folders, which are root's own.
func resolved(r Roots) Roots {
	for _, folder := range []*string{&r.Kubelet, &r.Logs} {
		if real, err := filepath.EvalSymlinks(*folder); err == nil {
			*folder = real
		}
	}
	return r
}

// mountNamespaces looks for memory in every mount namespace that a thread of the pod is in.
func (f *finder) mountNamespaces(ctx context.Context, within time.Duration) (err error) {
	roots := f.found.roots
	f.node, err = readNode(ctx, roots.Node, roots.Kept)
	if err != nil {
		f.gaps.add(roots.Node, GapUnreadable, err)
		return ctx.Err()
	}
	own, err := nodeNamespace(roots.Node)
	if err != nil {
		f.gaps.add(roots.Node, GapUnreadable, err)
		return ctx.Err()
	}
	list, err := namespaces(f.found.Pod.Processes)
	if err != nil {
		f.gaps.add("/proc", GapUnreadable, err)
	}
	look, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for _, one := range list {
		if one.inode == own {
			f.gaps.add(one.label(), GapNodeNamespace, errors.New("what is mounted there is the node's"))
			continue
		}
		err := look.Err()
		if err == nil {
			err = one.look(look, func(s *scene) error { return f.scan(look, s, one) })
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			f.gaps.add(one.label(), GapTimeUsedUp, fmt.Errorf("%s to look for memory were used up: %w", within, err))
		case err != nil:
			f.gaps.add(one.label(), GapUnreadable, err)
		}
	}
	return nil
}

// folder adds a folder of the node as a source if it is there.
func (f *finder) folder(s *scene, path, name string, kind evidence.PodSourceKind) {
	fd, at, err := s.folder(path)
	if errors.Is(err, unix.ENOENT) {
		f.gaps.add(path, GapUnreadable, fmt.Errorf("there is none: %w", err))
		return
	}
	if err != nil {
		f.gaps.add(path, reason(err), err)
		return
	}
	defer f.close(fd, path)
	f.disk(s, place{fd, at, path}, evidence.PodSource{Name: name, Kind: kind})
}

// place is an open folder, the mount it is on and its path.
type place struct {
	fd, at int
	path   string
}

// disk adds an open folder on a file system of the node's.
func (f *finder) disk(s *scene, p place, source evidence.PodSource) bool {
	fsType := s.fsTypes[p.at]
	var stat unix.Stat_t
	var err error
	if !local[fsType] {
		err = fmt.Errorf("%w: %q", errUntrusted, fsType)
	} else if err = unix.Fstat(p.fd, &stat); err != nil {
		err = fmt.Errorf("look at the folder: %w", err)
	}
	if err != nil {
		f.gaps.add(p.path, reason(err), err)
		return false
	}
	source.Path, source.Filesystem, source.Device = evidence.Text(p.path), fsType, device(&stat)
	f.found.Sources = append(f.found.Sources, Source{PodSource: source, PodUID: f.found.Pod.UID, inode: stat.Ino})
	return true
}

func (f *finder) close(fd int, path string) {
	if err := unix.Close(fd); err != nil {
		f.gaps.add(path, GapUnreadable, fmt.Errorf("close: %w", err))
	}
}

// name names the memory that mount namespaces have. A device's number is not given to another file system while one that
// has it is mounted or kept.
func (f *finder) name() {
	names := map[string]string{}
	for i := range f.found.Sources {
		source := &f.found.Sources[i]
		if source.Name != "" {
			continue
		}
		_, minor, _ := strings.Cut(source.Device, ":")
		source.Name = memoryFolder + shortNames[source.Kind] + "-" + minor + "-" + strconv.FormatUint(source.inode, 10)
		names[key(source.Device, source.inode)] = source.Name
	}
	for i := range f.found.Mounts {
		mount := &f.found.Mounts[i]
		// Until now it held the key.
		mount.Source = names[mount.Source]
	}
}

const memoryFolder = "memory/"

var shortNames = map[evidence.PodSourceKind]string{
	evidence.PodSourceSharedMemory: "shm", evidence.PodSourceMemoryMount: "mount", evidence.PodSourceMemoryVolume: "emptydir",
}

func key(device string, inode uint64) string { return device + "/" + strconv.FormatUint(inode, 10) }
