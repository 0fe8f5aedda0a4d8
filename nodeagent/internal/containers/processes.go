package containers

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
		here, err := readProcesses(filepath.Join(folder, "cgroup.procs"))
		if gone(err) {
			return nil
		}
		found = append(found, here...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the processes of %s: %w", cgroup, err)
	}
	return found, nil
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

func readProcesses(file string) (found []int, err error) {
	open, err := os.Open(file) // #nosec G304 -- a cgroup file below the folder being walked
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	lines := bufio.NewScanner(open)
	for lines.Scan() {
		process, err := strconv.Atoi(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		// 0 stands for a process of another pid namespace than ours.
		if process != 0 {
			found = append(found, process)
		}
	}
	return found, lines.Err()
}

// Escaped counts the processes that share a pid namespace with one of the pod's containers but sit outside the pod's
// cgroup: a privileged process can move itself. Containers in the node's own pid namespace cannot be told from it and
// count for nothing.
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
	for _, container := range p.Containers {
		if name, err := os.Readlink(namespaceFile(container.Process)); err == nil && name != node {
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
	return count, nil
}

func namespaceFile(process int) string { return "/proc/" + strconv.Itoa(process) + "/ns/pid" }

// holds looks a process up again: it may be younger than the list of the pod's processes.
func (p Pod) holds(process int) bool {
	found, err := folders([]int{process})
	return err == nil && (found[process] == "" || found[process] == p.Cgroup || strings.HasPrefix(found[process], p.Cgroup+"/"))
}
