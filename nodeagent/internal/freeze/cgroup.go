package freeze

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How often cgroup.events is read again: a fifth of the 5 ms that a freeze takes.
const interval = time.Millisecond

// setFrozen writes cgroup.freeze and waits until cgroup.events confirms it, or says that no process is left.
func setFrozen(ctx context.Context, folder string, frozen bool) (State, error) {
	if folder == "" {
		return "", ErrNoCgroup
	}
	value, want, reached := "0", "frozen 0", Thawed
	if frozen {
		value, want, reached = "1", "frozen 1", Frozen
	}
	err := os.WriteFile(filepath.Join(folder, "cgroup.freeze"), []byte(value), 0)
	if vanished(err) {
		return Gone, nil
	}
	if err != nil {
		return "", err
	}
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		events, err := os.ReadFile(filepath.Join(folder, "cgroup.events")) // #nosec G304 -- a file of the cgroup just written
		switch {
		case vanished(err), err == nil && has(events, "populated 0"):
			return Gone, nil
		case err != nil:
			return "", err
		case has(events, want):
			return reached, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %q in %s/cgroup.events: %w", want, folder, ctx.Err())
		case <-ticks.C:
		}
	}
}

func has(events []byte, line string) bool {
	return strings.Contains("\n"+string(events), "\n"+line+"\n")
}

// vanished tells that the cgroup was removed, before or after its file was opened.
func vanished(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }
