package containers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup says that a process is in no cgroup that the mounted cgroup2 file system shows.
var ErrNoCgroup = errors.New("no cgroup2 folder")

// mount is one cgroup2 mount: the cgroup at root is visible at point.
type mount struct{ root, point string }

// cgroupMounts returns the cgroup2 mounts of a mountinfo file, in its order.
func cgroupMounts(mountinfo io.Reader) ([]mount, error) {
	var mounts []mount
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20) // overlay mounts list every lower layer on one line
	for lines.Scan() {
		// 36 35 98:0 /root /point rw,noatime master:1 - cgroup2 source options
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if !found || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		mounts = append(mounts, mount{root: unescape(fields[3]), point: unescape(fields[4])})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read mountinfo: %w", err)
	}
	return mounts, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(field string) string {
	var out strings.Builder
	for i := 0; i < len(field); i++ {
		if field[i] == '\\' && i+3 < len(field) {
			if code, err := strconv.ParseUint(field[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(code))
				i += 3
				continue
			}
		}
		out.WriteByte(field[i])
	}
	return out.String()
}

// unifiedPath returns the path of the `0::` line of a /proc/PID/cgroup file.
func unifiedPath(cgroup string) (string, error) {
	for line := range strings.Lines(cgroup) {
		if name, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::"); ok {
			return strings.TrimSuffix(name, " (deleted)"), nil
		}
	}
	return "", ErrNoCgroup
}

// resolve joins a cgroup's path to the first mount that shows it.
func resolve(mounts []mount, cgroup string) (string, error) {
	for _, m := range mounts {
		below, ok := strings.CutPrefix(cgroup, strings.TrimSuffix(m.root, "/"))
		if !ok || (below != "" && below[0] != '/') {
			continue
		}
		return path.Join(m.point, below), nil
	}
	return "", fmt.Errorf("find a mount of cgroup %s: %w", cgroup, ErrNoCgroup)
}

// split cuts a container's folder into the pod's cgroup and the container's own, which is the pod's direct child. The
// folders are the ones that the process is in; the uid only tells where the pod's begins, since a process may have made
// cgroups of its own below its container's. Without the uid in it the folder is not known to be the pod's, and nothing
// is returned: the folder above an unknown one may be the whole node's.
func split(folder, podUID string) (pod, container string) {
	above := "/"
	for part := range strings.SplitSeq(strings.Trim(folder, "/"), "/") {
		here := path.Join(above, part)
		if pod != "" {
			return pod, here
		}
		// The systemd driver writes dashes as underscores: a dash there stands for a slash.
		if strings.Contains(strings.ReplaceAll(part, "_", "-"), "pod"+podUID) {
			pod = here
		}
		above = here
	}
	return pod, ""
}

// folders returns the cgroup2 folder of each process that still exists.
//
// Both files that it joins show paths relative to the cgroup namespace of the thread that reads them. On a pure cgroup v2
// host the runtime gives this container a namespace of its own, where every other pod is `/../..`; so they are read on a
// thread that has joined the node's, that of process 1. The mount is the node's cgroup2, mounted into this container at
// its own path. The thread is not handed back: it ends with its goroutine.
func folders(processes []int) (map[int]string, error) {
	type answer struct {
		folders map[int]string
		err     error
	}
	answers := make(chan answer)
	go func() {
		runtime.LockOSThread()
		found, err := readFolders(processes)
		answers <- answer{found, err}
	}()
	got := <-answers
	return got.folders, got.err
}

func readFolders(processes []int) (map[int]string, error) {
	if err := joinCgroupNamespace("/proc/1/ns/cgroup"); err != nil {
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("open mountinfo: %w", err)
	}
	mounts, err := cgroupMounts(file)
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	found := make(map[int]string, len(processes))
	for _, process := range processes {
		content, err := os.ReadFile("/proc/" + strconv.Itoa(process) + "/cgroup")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the cgroup of process %d: %w", process, err)
		}
		cgroup, err := unifiedPath(string(content))
		if err != nil {
			return nil, fmt.Errorf("read the cgroup of process %d: %w", process, err)
		}
		folder, err := resolve(mounts, cgroup)
		if err != nil {
			return nil, err
		}
		found[process] = folder
	}
	return found, nil
}

func joinCgroupNamespace(file string) error {
	descriptor, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	err = unix.Setns(descriptor, unix.CLONE_NEWCGROUP)
	if err := errors.Join(err, unix.Close(descriptor)); err != nil {
		return fmt.Errorf("join the cgroup namespace of %s: %w", file, err)
	}
	return nil
}
