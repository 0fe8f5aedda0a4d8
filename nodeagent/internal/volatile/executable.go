package volatile

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// objects are what the process's own links lead to.
type objects struct{ executable, directory, root *evidence.VolatileObject }

func readObjects(h *handle, found *findings) (objects, error) {
	var o objects
	for name, object := range map[string]**evidence.VolatileObject{"exe": &o.executable, "cwd": &o.directory, "root": &o.root} {
		var err error
		if *object, err = readObject(h, h.through+name); err != nil {
			part := map[string]string{"exe": "executable", "cwd": "directory", "root": "root"}[name]
			found.add(part, reasonOf(err), err)
		}
	}
	return o, nil
}

func readObject(h *handle, name string) (*evidence.VolatileObject, error) {
	path, unnamed := h.link(name)
	if unnamed != nil && !errors.Is(unnamed, unix.ENAMETOOLONG) {
		return nil, unnamed
	}
	stat, err := h.look(name)
	if err != nil {
		return &evidence.VolatileObject{Path: evidence.Text(path), Deleted: markedDeleted(path)}, errors.Join(unnamed, err)
	}
	return &evidence.VolatileObject{
		Path: evidence.Text(path), Deleted: stat.Nlink == 0 || markedDeleted(path),
		Device: device(stat.Dev_major, stat.Dev_minor), Inode: stat.Ino, Links: stat.Nlink,
		Mode: uint32(stat.Mode & 0o7777), Size: stat.Size, UID: stat.Uid, GID: stat.Gid,
	}, unnamed
}

// hashes of executables, each version of a file read once.
type hashes struct {
	guard   *guard
	servers *servers
	known   map[identified]hashed
	total   int64
}

// hashed is the sha256 of a file, or the error of one that the kernel did not answer for.
type hashed struct {
	sum string
	err error
}

func newHashes(g *guard) *hashes {
	return &hashes{guard: g, servers: newServers(g), known: map[identified]hashed{}}
}

// executable hashes what the process runs. What kept us waiting is not opened again for another process that runs it, and
// nothing is opened any more once maxAsking threads wait, wherever it lies: what else is told of the processes comes later.
func (s *hashes) executable(ctx context.Context, h *handle, list []evidence.VolatileMount, limits Limits) (string, error) {
	exe, err := pinWatched(ctx, s.guard, h, h.through+"exe")
	if err != nil {
		return "", err
	}
	defer exe.release()
	version := identify(exe.stat)
	if known, ok := s.known[version]; ok {
		return known.sum, known.err
	}
	if err := s.servers.refuse(ctx, exe, list, h); err != nil {
		return "", err
	}
	size := int64(exe.stat.Size) // #nosec G115 -- the kernel bounds sizes to 63 bits
	switch {
	case size > limits.Hash:
		return "", errLimit{limited(fmt.Sprintf("%d bytes", size), limits.Hash)}
	case s.total+size > limits.HashTotal:
		return "", errLimit{limited(fmt.Sprintf("%d bytes in all", s.total+size), limits.HashTotal)}
	case s.guard.abandoned >= maxAsking:
		return "", errNotBegun
	}
	sum, err := s.read(ctx, exe, size, h)
	if err == nil || gaveUp(err) {
		s.known[version] = hashed{sum, err}
	}
	return sum, err
}

func (s *hashes) read(ctx context.Context, exe pinned, size int64, h *handle) (string, error) {
	file, err := s.servers.open(ctx, exe, h.patience)
	if err != nil {
		return "", err
	}
	defer file.release()
	s.total += size
	sum, err := file.digest(ctx, s.guard, size)
	return sum, s.servers.heed(exe, err)
}

// errLimit is an error for which a limit is the reason.
type errLimit struct{ cause error }

func (e errLimit) Error() string { return e.cause.Error() }

func (e errLimit) Unwrap() error { return e.cause }

// reasonOfContent of an error that kept a file's content from being read.
func reasonOfContent(err error) string {
	if errors.Is(err, errServed) {
		return GapFilesystem
	}
	return reasonOf(err)
}
