package freeze

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// errThawed says that the runtime takes a container for paused whose processes run.
var errThawed = errors.New("the runtime says paused, and the freezer THAWED")

// confirmPaused waits until the v1 freezer says of a paused container's folder that every process in it is frozen. The
// runtime knows only that it paused the container once; whoever may write to that tree may have thawed it since. A folder
// that is gone had its last process end.
func confirmPaused(ctx context.Context, folder string) (State, error) {
	file := filepath.Join(folder, "freezer.state")
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		content, err := os.ReadFile(file) // #nosec G304 -- a file of a cgroup that the runtime made
		switch state := strings.TrimSpace(string(content)); {
		case vanished(err):
			return Gone, nil
		case err != nil:
			return "", err
		case state == "FROZEN":
			return Frozen, nil
		case state == "THAWED":
			return "", fmt.Errorf("%s: %w", file, errThawed)
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %s to say FROZEN: %w", file, ctx.Err())
		case <-ticks.C:
		}
	}
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
