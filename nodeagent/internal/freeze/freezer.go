package freeze

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// setFreezer writes freezer.state and waits until it says so of every process in the folder and below it, or that none is
// left. It asks at each look: a freeze that a process escaped for the moment stands at FREEZING until it is asked for again.
func setFreezer(ctx context.Context, folder string, want State) (State, error) {
	value := "THAWED"
	if want == Frozen {
		value = "FROZEN"
	}
	if folder == "" {
		return "", ErrNoCgroup
	}
	file := filepath.Join(folder, "freezer.state")
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		err := os.WriteFile(file, []byte(value), 0)
		if vanished(err) {
			return Gone, nil
		}
		if err != nil {
			return "", err
		}
		state, err := readFreezer(folder)
		if err != nil || state == want || state == Gone {
			return state, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %s to say %s: %w", file, value, ctx.Err())
		case <-ticks.C:
		}
	}
}

// readFreezer returns Thawed until every process is frozen.
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
	inside, err := populated(folder)
	switch {
	case err != nil:
		return "", err
	case !inside:
		return Gone, nil
	case strings.TrimSpace(string(content)) == "FROZEN":
		return Frozen, nil
	}
	return Thawed, nil
}

// populated says whether a process is in a folder of a v1 tree or below it. These trees have no line that says so.
func populated(folder string) (inside bool, err error) {
	err = filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if vanished(err) || (err == nil && !entry.IsDir()) {
			return nil
		}
		if err != nil {
			return err
		}
		list, err := os.ReadFile(filepath.Join(name, "cgroup.procs")) // #nosec G304,G122 -- a file of a cgroup, where there are no links
		if len(list) > 0 {
			inside = true
			return fs.SkipAll
		}
		if err != nil && !vanished(err) {
			return err
		}
		return nil
	})
	return inside, err
}

// freezerRoot returns where the v1 freezer's tree is mounted, empty when it is not.
func freezerRoot() (root string, err error) {
	file, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for the v1 freezer: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20) // overlay mounts list every lower layer on one line
	for lines.Scan() {
		// 36 35 98:0 /root /point rw,noatime master:1 - cgroup source options
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) > 4 && len(kind) > 2 && kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "freezer") {
			return fields[4], nil
		}
	}
	return "", lines.Err()
}
