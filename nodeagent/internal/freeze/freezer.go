package freeze

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// askAgain spaces the requests of one freeze: one that a process escaped for the moment stands at FREEZING until it is
	// asked for again, and one that follows a thaw at once undoes a kill, which a frozen process takes only as it is thawed.
	askAgain = 100 * time.Millisecond
	// maxFolders is how many are looked at for a process. A suspect may make any number.
	maxFolders = 1000
)

// setFreezer writes freezer.state and waits until it says so, which for a freeze is of every process in the folder and below
// it, or until no process is left. Where an exec keeps a freeze from its end, through may say that it is let end.
func setFreezer(ctx context.Context, folder string, want State, through func() bool) (State, error) {
	if folder == "" {
		return "", ErrNoCgroup
	}
	file := filepath.Join(folder, "freezer.state")
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	var asked time.Time
	begun := time.Now()
	for {
		if want == Frozen && time.Since(begun) >= execWithin {
			if waitsInExec(folder) && through() {
				letThrough(file)
			}
			begun, asked = time.Now(), time.Time{}
		}
		if time.Since(asked) >= askAgain {
			err := os.WriteFile(file, []byte(values[want]), 0)
			if vanished(err) {
				return Gone, nil
			}
			if err != nil {
				return "", err
			}
			asked = time.Now()
		}
		state, err := readFreezer(folder)
		if err != nil || state == want || state == Gone {
			return state, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %s to say %s: %w", file, values[want], ctx.Err())
		case <-ticks.C:
		}
	}
}

// values of freezer.state.
var values = map[State]string{Frozen: "FROZEN", Thawed: "THAWED"}

// readFreezer returns Freezing as long as not every process is frozen.
func readFreezer(folder string) (State, error) {
	if folder == "" {
		return "", ErrNoCgroup
	}
	content, err := os.ReadFile(filepath.Join(folder, "freezer.state")) // #nosec G304 -- a file of a cgroup that the runtime made
	if vanished(err) {
		return Gone, nil
	}
	if err != nil {
		return "", err
	}
	if !populated(folder) {
		return Gone, nil
	}
	switch strings.TrimSpace(string(content)) {
	case "FROZEN":
		return Frozen, nil
	case "THAWED":
		return Thawed, nil
	}
	return Freezing, nil
}

var errTooMany = errors.New("too many folders")

// populated says whether a process is in a folder of a v1 tree or below it: these trees have no line that says so. Like
// anyFolder it says yes unless it has seen that none is.
func populated(folder string) bool {
	return anyFolder(folder, func(name string) (bool, error) {
		list, err := os.ReadFile(filepath.Join(name, "cgroup.procs")) // #nosec G304 -- a file of a cgroup, where there are no links
		return len(list) > 0, err
	})
}

// anyBelow is anyFolder without the folder itself.
func anyBelow(folder string, so func(name string) (bool, error)) bool {
	return anyFolder(folder, func(name string) (bool, error) {
		if name == folder {
			return false, nil
		}
		return so(name)
	})
}

// anyFolder says whether a folder of a cgroup tree, or one below it, is so. It says yes unless it has seen that none is: of
// more than maxFolders, and of one that cannot be read, as below a path too long. One that vanishes meanwhile is not.
func anyFolder(folder string, so func(name string) (bool, error)) bool {
	found, seen := false, 0
	err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if vanished(err) || (err == nil && !entry.IsDir()) {
			return nil
		}
		if err != nil {
			return err
		}
		if seen++; seen > maxFolders {
			return errTooMany
		}
		here, err := so(name)
		if here {
			found = true
			return fs.SkipAll
		}
		if err != nil && !vanished(err) {
			return err
		}
		return nil
	})
	return found || err != nil
}

// says tells whether a file of a cgroup has this value.
func says(folder, file, value string) (bool, error) {
	content, err := os.ReadFile(filepath.Join(folder, file)) // #nosec G304 -- a file of a cgroup, where there are no links
	return strings.TrimSpace(string(content)) == value, err
}

// freezerRoot returns where the root of the v1 freezer's tree is mounted, empty when it is not.
func freezerRoot() (root string, err error) {
	file, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for the v1 freezer: %w", err)
	}
	root, err = readFreezerRoot(file)
	return root, errors.Join(err, file.Close())
}

// readFreezerRoot passes over mounts of a part of the tree: who is moved there has left it for another container's folder,
// and not for the root, which cannot be frozen.
func readFreezerRoot(mountinfo io.Reader) (string, error) {
	lines := bufio.NewScanner(mountinfo)
	lines.Buffer(nil, 1<<20) // overlay mounts list every lower layer on one line
	for lines.Scan() {
		// 36 35 98:0 /root /point rw,noatime master:1 - cgroup source options
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && fields[3] == "/" && len(kind) > 2 && kind[0] == "cgroup" &&
			slices.Contains(strings.Split(kind[2], ","), "freezer") {
			return fields[4], nil
		}
	}
	return "", lines.Err()
}
