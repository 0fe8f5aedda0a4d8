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
func setFrozen(ctx context.Context, folder string, want State) (State, error) {
	value := "0"
	if want == Frozen {
		value = "1"
	}
	if folder == "" {
		return "", ErrNoCgroup
	}
	err := os.WriteFile(filepath.Join(folder, "cgroup.freeze"), []byte(value), 0)
	if vanished(err) {
		return Gone, nil
	}
	if err != nil {
		return "", err
	}
	return reach(ctx, folder, want)
}

// reach waits until cgroup.events says that the state is reached, or that no process is left.
func reach(ctx context.Context, folder string, want State) (State, error) {
	ticks := time.NewTicker(interval)
	defer ticks.Stop()
	for {
		state, err := readState(folder)
		if err != nil || state == want || state == Gone {
			return state, err
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %s/cgroup.events to say %s: %w", folder, want, ctx.Err())
		case <-ticks.C:
		}
	}
}

func readState(folder string) (State, error) {
	if folder == "" {
		return "", ErrNoCgroup
	}
	events, err := os.ReadFile(filepath.Join(folder, "cgroup.events")) // #nosec G304 -- a file of a cgroup that the kernel named
	switch {
	case vanished(err), err == nil && has(events, "populated 0"):
		return Gone, nil
	case err != nil:
		return "", err
	case has(events, "frozen 1"):
		return Frozen, nil
	}
	return Thawed, nil
}

func has(events []byte, line string) bool {
	return strings.Contains("\n"+string(events), "\n"+line+"\n")
}

// vanished tells that the cgroup was removed, before or after its file was opened.
func vanished(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }
