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
