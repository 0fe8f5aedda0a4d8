package podfiles

import (
	"bufio"
	"bytes"
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
	// maxMemoryMounts of a namespace that are looked at.
	maxMemoryMounts = 1000
	// maxMountLine bounds a line: an overlay of 500 layers whose paths are escaped.
	maxMountLine = 8 << 20
)

var errTooManyMounts = errors.New("more mounts than can be looked at")

// mount is a mount of a file system in memory.
type mount struct {
	id          int
	device      string
	root, point string
	fsType      string
	readOnly    bool
}

// mounts is a list of mounts: the type of each, and those in memory.
type mounts struct {
	fsTypes map[int]string
	memory  []mount
	// cut is set when there were more in memory than were asked for.
	cut bool
}

// readMounts reads a mountinfo file, and keeps up to limit mounts in memory. Names in it are the suspect's; the shape is
// the kernel's.
func readMounts(file io.Reader, limit int) (*mounts, error) {
	found := &mounts{fsTypes: map[int]string{}}
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 64<<10), maxMountLine)
	for lines.Scan() {
		if len(found.fsTypes) > maxMounts {
			return nil, errTooManyMounts
		}
		one, err := parseMount(lines.Bytes())
		if err != nil {
			return nil, err
		}
		found.fsTypes[one.id] = one.fsType
		if !inMemory(one.fsType) {
			continue
		}
		if len(found.memory) == limit {
			found.cut = true
			continue
		}
		found.memory = append(found.memory, one)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return found, nil
}

// parseMount takes one line apart: id, parent, device, root, mount point, options, optional fields, a dash, type, source
// and the file system's options.
func parseMount(line []byte) (mount, error) {
	before, after, ok := bytes.Cut(line, []byte(" - "))
	fields, types := strings.Split(string(before), " "), strings.Split(string(after), " ")
	if !ok || len(fields) < 6 || len(types) < 3 {
		return mount{}, fmt.Errorf("mount %.200q has another shape than the kernel's", line)
	}
	id, err := strconv.Atoi(fields[0])
	if err != nil {
		return mount{}, fmt.Errorf("mount %.200q: %w", line, err)
	}
	return mount{
		id: id, device: fields[2], root: proc.Unescape(fields[3]), point: proc.Unescape(fields[4]), fsType: types[0],
		readOnly: strings.HasPrefix(fields[5]+",", "ro,"),
	}, nil
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

// readNode leaves out what is below kept: those are a Keeper's.
func readNode(file, kept string) (nodeMounts, error) {
	open, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open the node's mounts: %w", err)
	}
	list, err := readMounts(open, maxMounts)
	if err := errors.Join(err, open.Close()); err != nil {
		return nil, fmt.Errorf("read the node's mounts %s: %w", file, err)
	}
	node := nodeMounts{}
	for _, one := range list.memory {
		if kept != "" && strings.HasPrefix(one.point, kept+"/") {
			continue
		}
		node[one.device] = append(node[one.device], one.point)
	}
	return node, nil
}

func device(stat *unix.Stat_t) string {
	return fmt.Sprintf("%d:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev))
}
