package containers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// mount is one mount of a cgroup tree: the cgroup at root is visible at point.
type mount struct{ root, point string }

// trees are the mounts of the two cgroup trees that processes are frozen in.
type trees struct{ unified, freezer []mount }

// readTrees returns the mounts of cgroup2 and of the v1 freezer in a mountinfo file, in its order.
func readTrees(mountinfo io.Reader) (trees, error) {
	var found trees
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20) // overlay mounts list every lower layer on one line
	for lines.Scan() {
		// 36 35 98:0 /root /point rw,noatime master:1 - cgroup2 source options
		before, after, cut := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !cut || len(fields) < 5 || len(kind) < 3 {
			continue
		}
		here := mount{root: proc.Unescape(fields[3]), point: proc.Unescape(fields[4])}
		switch {
		case kind[0] == "cgroup2":
			found.unified = append(found.unified, here)
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "freezer"):
			found.freezer = append(found.freezer, here)
		}
	}
	if err := lines.Err(); err != nil {
		return trees{}, fmt.Errorf("read mountinfo: %w", err)
	}
	return found, nil
}

// place is where a process or a thread is.
type place struct {
	// unified is its cgroup2 folder, empty when no mount shows it.
	unified string
	// freezer is its path in the v1 freezer's tree, empty on a node without that tree.
	freezer string
}

// place reads a /proc/PID/cgroup file.
func (t trees) place(cgroup string) place {
	var found place
	for line := range strings.Lines(cgroup) {
		// 0::/path of cgroup2, or 6:freezer:/path
		_, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		controllers, name, _ := strings.Cut(rest, ":")
		name = strings.TrimSuffix(name, " (deleted)")
		switch {
		case strings.HasPrefix(line, "0::"):
			found.unified, _ = resolve(t.unified, name)
		case slices.Contains(strings.Split(controllers, ","), "freezer"):
			found.freezer = name
		}
	}
	return found
}

// resolve joins a cgroup's path to the first mount that shows it, and says whether one does.
func resolve(mounts []mount, cgroup string) (folder string, shown bool) {
	for _, m := range mounts {
		below, ok := strings.CutPrefix(cgroup, strings.TrimSuffix(m.root, "/"))
		if ok && (below == "" || below[0] == '/') {
			return path.Join(m.point, below), true
		}
	}
	return "", false
}

// within says whether a cgroup is the other or below it.
func within(cgroup, other string) bool {
	return cgroup == other || strings.HasPrefix(cgroup, other+"/")
}

// onNode reads the cgroup trees as the node has them, and runs do. The mounts are the node's, mounted into this container at
// their own paths.
func onNode(do func(trees) error) error {
	return proc.OnNode(func() error {
		file, err := os.Open("/proc/thread-self/mountinfo")
		if err != nil {
			return fmt.Errorf("open mountinfo: %w", err)
		}
		found, err := readTrees(file)
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		return do(found)
	})
}

// placeOf returns where a process, or the thread of one, is: its id may be `PID` or `PID/task/TID`.
func (t trees) placeOf(id string) (place, error) {
	content, err := os.ReadFile("/proc/" + id + "/cgroup")
	if err != nil {
		return place{}, fmt.Errorf("read the cgroup of process %s: %w", id, err)
	}
	return t.place(string(content)), nil
}
