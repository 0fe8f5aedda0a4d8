package containers

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// processes returns every process in a cgroup and below it. Folders and processes that vanish meanwhile are left out.
func processes(cgroup string) ([]int, error) {
	var found []int
	err := filepath.WalkDir(cgroup, func(folder string, entry fs.DirEntry, err error) error {
		if gone(err) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		here, err := readNumbers(filepath.Join(folder, "cgroup.procs"))
		if errors.Is(err, unix.EOPNOTSUPP) {
			here, err = threadedProcesses(folder), nil
		}
		if gone(err) {
			return nil
		}
		found = append(found, here...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", cgroup, err)
	}
	// A process of a threaded cgroup is in the list of the cgroup above, too.
	slices.Sort(found)
	return slices.Compact(found), nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// threadedProcesses returns the processes of a threaded cgroup, which lists threads only. Whatever cannot be read is left
// out: the nearest cgroup above that is not threaded lists these processes as well.
func threadedProcesses(folder string) []int {
	threads, err := readNumbers(filepath.Join(folder, "cgroup.threads"))
	if err != nil {
		return nil
	}
	var found []int
	for _, thread := range threads {
		if process := processOf(thread); process != 0 {
			found = append(found, process)
		}
	}
	return found
}

// processOf returns the process that a thread belongs to, 0 when it is gone.
func processOf(thread int) int {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(thread) + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			process, _ := strconv.Atoi(strings.TrimSpace(value))
			return process
		}
	}
	return 0
}

// readNumbers reads the ids of processes or threads, one a line.
func readNumbers(file string) (found []int, err error) {
	open, err := os.Open(file) // #nosec G304 -- a cgroup file below the folder being walked
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	lines := bufio.NewScanner(open)
	for lines.Scan() {
		number, err := strconv.Atoi(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		// 0 stands for one of another pid namespace than ours.
		if number != 0 {
			found = append(found, number)
		}
	}
	return found, lines.Err()
}

// ErrSharedNamespace says that a container is in the node's own pid namespace.
var ErrSharedNamespace = errors.New("the pod shares the node's pid namespace")

// Escaped counts the processes that share a pid namespace with one of the pod's containers but sit outside the pod's
// cgroup: a privileged process can move itself. Processes of containers in the node's own pid namespace cannot be told
// from the node's and do not count; then the error is ErrSharedNamespace.
func (p Pod) Escaped() (int, error) {
	if p.Cgroup == "" {
		return 0, nil
	}
	node, err := os.Readlink("/proc/1/ns/pid")
	if err != nil {
		return 0, fmt.Errorf("read the node's pid namespace: %w", err)
	}
	inside := make(map[int]bool, len(p.Processes))
	for _, process := range p.Processes {
		inside[process] = true
	}
	own := make(map[string]bool)
	var shared error
	for _, container := range p.Containers {
		name, err := os.Readlink(namespaceFile(container.Process))
		switch {
		case err != nil:
		case name == node:
			shared = ErrSharedNamespace
		default:
			own[name] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("list processes: %w", err)
	}
	count := 0
	for _, entry := range entries {
		process, err := strconv.Atoi(entry.Name())
		if err != nil || inside[process] {
			continue
		}
		name, err := os.Readlink(namespaceFile(process))
		if err == nil && own[name] && !p.holds(process) {
			count++
		}
	}
	return count, shared
}

func namespaceFile(process int) string { return "/proc/" + strconv.Itoa(process) + "/ns/pid" }

// holds looks a process up again: it may be younger than the list of the pod's processes.
func (p Pod) holds(process int) bool {
	found, err := folders([]int{process})
	return err == nil && (found[process] == "" || found[process] == p.Cgroup || strings.HasPrefix(found[process], p.Cgroup+"/"))
}
