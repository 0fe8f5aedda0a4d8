package podfiles

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

const (
	// maxMounts of a namespace that are read; the kernel's own bound (fs.mount-max) is the same.
	maxMounts = 100_000
	// maxListBytes of a list of mounts that are read, and of the node's, which has what is kept of pods as well. A process can
	// make lines of many MiB each; a usual line has 200 bytes, that of an overlay some thousand.
	maxListBytes, maxNodeListBytes = 16 << 20, 256 << 20
	// maxMemoryMounts of a namespace that are looked at.
	maxMemoryMounts = 1000
	// maxPathBytes of a namespace's mounts in memory, and of those in all namespaces of a pod. What is kept of them adds as
	// much to the node's list.
	maxPathBytes = 4 << 20
	// maxNodePathBytes of the node's own mounts in memory.
	maxNodePathBytes = 32 << 20
	// maxField bounds what is kept of a field of a line. The kernel bounds no path there: it grows with each folder that a
	// process makes in its working folder. A line has two paths.
	maxField = 32 << 10
	// maxFolders of a path that are walked through, at some five system calls each.
	maxFolders = 1024
	// maxShown of a path that is longer is recorded.
	maxShown = 1 << 10
	// maxType bounds the name of a file system: of a FUSE file system a process chooses it.
	maxType = 64
)

// mount is a mount of a file system in memory.
type mount struct {
	id          int
	device      string
	root, point string
	fsType      string
	readOnly    bool
	// bytes of both paths as they are in the list, or of what is there of them.
	bytes int
	// cut is set when one of the paths is only the beginning.
	cut bool
}

// mounts is a list of mounts: the type of each, and those in memory.
type mounts struct {
	fsTypes map[int]string
	memory  []mount
	// cut says why mounts in memory may be missing; nil when none is.
	cut error
}

// readMounts reads a mountinfo file, and keeps up to limit mounts in memory. A mount that was not read has no type, and no
// file system without a type is local.
func readMounts(file io.Reader, limit int) (*mounts, error) {
	found, paths := &mounts{fsTypes: map[int]string{}}, 0
	cut, err := eachMount(file, maxListBytes, func(one mount) {
		found.fsTypes[one.id] = one.fsType
		if !inMemory(one.fsType) {
			return
		}
		switch paths += one.bytes; {
		case len(found.memory) == limit:
			found.cut = fmt.Errorf("more than %d mounts of memory", limit)
		case paths > maxPathBytes:
			found.cut = fmt.Errorf("mounts of memory with paths of more than %d bytes", maxPathBytes)
		default:
			found.memory = append(found.memory, one)
		}
	})
	if err != nil {
		return nil, err
	}
	if cut != nil {
		found.cut = cut
	}
	return found, nil
}

// eachMount reads a mountinfo file up to a size. Names in it are the suspect's; the shape is the kernel's. It returns why the
// rest was not read.
func eachMount(file io.Reader, size int64, each func(mount)) (cut, err error) {
	bounded := &io.LimitedReader{R: file, N: size}
	lines := bufio.NewReaderSize(bounded, 64<<10)
	var line []byte
	for count := 0; ; count++ {
		line, err = readLine(lines, line[:0])
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("read mounts: %w", err)
		case err != nil && bounded.N == 0:
			return fmt.Errorf("the list of mounts is longer than %d bytes", size), nil
		case err != nil && len(line) == 0:
			return nil, nil
		case count == maxMounts:
			return fmt.Errorf("more than %d mounts", maxMounts), nil
		}
		one, err := parseMount(line)
		if err != nil {
			return nil, err
		}
		each(one)
	}
}

// readLine appends a line without its end. Of a field, which ends at a blank, it keeps maxField bytes.
func readLine(from *bufio.Reader, line []byte) ([]byte, error) {
	field := 0
	for {
		next, err := from.ReadByte()
		if err != nil {
			return line, err
		}
		switch {
		case next == '\n':
			return line, nil
		case next == ' ':
			field = 0
		case field == maxField:
			continue
		default:
			field++
		}
		line = append(line, next)
	}
}

// parseMount takes one line apart: id, parent, device, root, mount point, options, optional fields, a dash, type, source
// and the file system's options. It keeps nothing of the line itself.
func parseMount(line []byte) (mount, error) {
	before, after, ok := bytes.Cut(line, []byte(" - "))
	fields, types := bytes.Split(before, []byte(" ")), bytes.Split(after, []byte(" "))
	if !ok || len(fields) < 6 || len(types) < 3 {
		return mount{}, fmt.Errorf("mount %.200q has another shape than the kernel's", line)
	}
	id, err := strconv.Atoi(string(fields[0]))
	if err != nil {
		return mount{}, fmt.Errorf("mount %.200q: %w", line, err)
	}
	one := mount{
		id: id, device: string(fields[2]), fsType: string(types[0][:min(len(types[0]), maxType)]),
		readOnly: bytes.Equal(fields[5], []byte("ro")) || bytes.HasPrefix(fields[5], []byte("ro,")),
	}
	var cutRoot, cutPoint bool
	one.root, cutRoot = path(fields[3])
	one.point, cutPoint = path(fields[4])
	one.bytes, one.cut = len(fields[3])+len(fields[4]), cutRoot || cutPoint
	if one.cut {
		one.bytes = len(one.root) + len(one.point)
	}
	return one, nil
}

// path returns the path that a field stands for, or the beginning of one that is too long.
func path(field []byte) (path string, cut bool) {
	if len(field) == maxField || bytes.Count(field, []byte("/")) > maxFolders {
		return proc.Unescape(string(field[:min(len(field), maxShown)])), true
	}
	return proc.Unescape(string(field)), false
}

func inMemory(fsType string) bool {
	return fsType == "tmpfs" || fsType == "ramfs" || fsType == "hugetlbfs"
}

// local are the file systems that the kernel serves by itself: to look up a name in one of them waits for no process,
// which might be frozen, and for no server.
var local = map[string]bool{
	"tmpfs": true, "ramfs": true, "hugetlbfs": true, "devtmpfs": true, "rootfs": true, "overlay": true, "ext2": true,
	"ext3": true, "ext4": true, "xfs": true, "btrfs": true, "zfs": true, "f2fs": true, "bcachefs": true, "erofs": true,
	"squashfs": true, "aufs": true,
	// The runtime hides parts of both below empty mounts of memory.
	"proc": true, "sysfs": true,
}

// nodeMounts tells where the node itself has a file system mounted, by device.
type nodeMounts map[string][]string

// readNode leaves out what is below kept: those are a Keeper's. A list that is not whole is an error.
func readNode(ctx context.Context, file, kept string) (nodeMounts, error) {
	open, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open the node's mounts: %w", err)
	}
	node, paths := nodeMounts{}, 0
	cut, err := eachMount(timed{ctx, open}, maxNodeListBytes, func(one mount) {
		if !inMemory(one.fsType) || (kept != "" && strings.HasPrefix(one.point, kept+"/")) {
			return
		}
		if one.cut {
			// The beginning could pass for another path.
			one.point = ""
		}
		if paths += len(one.point); paths <= maxNodePathBytes {
			node[one.device] = append(node[one.device], one.point)
		}
	})
	if paths > maxNodePathBytes {
		cut = fmt.Errorf("mounts of memory with paths of more than %d bytes", maxNodePathBytes)
	}
	if err := errors.Join(err, cut, open.Close()); err != nil {
		return nil, fmt.Errorf("read the node's mounts %s: %w", file, err)
	}
	return node, nil
}

// timed reads until its context is done.
type timed struct {
	ctx  context.Context
	from io.Reader
}

func (t timed) Read(into []byte) (int, error) {
	if err := t.ctx.Err(); err != nil {
		return 0, err
	}
	return t.from.Read(into)
}

func device(stat *unix.Stat_t) string {
	return fmt.Sprintf("%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev))
}
