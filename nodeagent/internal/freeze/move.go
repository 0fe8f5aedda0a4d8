package freeze

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/proc"
)

// mover moves processes into a cgroup2 folder.
type mover struct {
	folder string
	// freezer is the root of the v1 freezer's tree, empty where processes stay in it as they are.
	freezer string
}

// moveAll returns those that were moved, and why another one was not. Between folders of different cpusets the kernel asks
// for CAP_SYS_NICE as well, and an older one wherever the cpuset controller is on.
func (m mover) moveAll(strays []Stray) (moved []Stray, err error) {
	err = proc.OnNode(func() error {
		var errs []error
		for _, stray := range strays {
			there, err := m.move(stray)
			if there {
				moved = append(moved, stray)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("stop process %d: %w", stray.PID, err))
			}
		}
		return errors.Join(errs...)
	})
	return moved, err
}

// move says whether the process is in the folder now. No call moves a process rather than a number, so its start time is
// looked at right before: the kernel gives a number again only after all others, which takes longer than from here to the
// write.
func (m mover) move(stray Stray) (bool, error) {
	now, err := proc.Read(strconv.Itoa(stray.PID))
	if proc.Over(err) || (err == nil && (now.Started != stray.StartTime || now.Ended)) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = m.write(m.folder, stray.PID)
	if errors.Is(err, unix.EOPNOTSUPP) {
		// A container that was made threaded makes every new folder beside it invalid until that is threaded, too.
		if err := os.WriteFile(filepath.Join(m.folder, "cgroup.type"), []byte("threaded"), 0); err != nil {
			return false, err
		}
		err = m.write(m.folder, stray.PID)
	}
	if errors.Is(err, unix.ESRCH) {
		return false, nil
	}
	if err != nil || m.freezer == "" {
		return err == nil, err
	}
	if err := m.write(m.freezer, stray.PID); err != nil && !errors.Is(err, unix.ESRCH) {
		return true, fmt.Errorf("leave the v1 freezer: %w", err)
	}
	return true, nil
}

func (m mover) write(folder string, pid int) error {
	return os.WriteFile(filepath.Join(folder, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0)
}

// confirm waits until the whole folder is frozen, and counts the moved. One that does not freeze within the bound, as in an
// uninterruptible wait, keeps the folder from being called frozen and is named; the others are counted.
func confirm(ctx context.Context, folder string, moved []Stray) (int, error) {
	state, err := reach(ctx, folder, Frozen)
	switch {
	case err == nil && state == Frozen:
		return len(moved), nil
	case err == nil || ctx.Err() == nil:
		return 0, err
	}
	stopped, errs := 0, []error{err}
	for _, stray := range moved {
		err := asleep(stray.PID)
		switch {
		case err == nil:
			stopped++
		case !proc.Over(err):
			errs = append(errs, fmt.Errorf("stop process %d: %w", stray.PID, err))
		}
	}
	return stopped, errors.Join(errs...)
}

var errRuns = errors.New("not frozen within the bound")

// asleep says whether every thread of a process in a frozen cgroup is stopped. The freeze wakes each thread that sleeps
// interruptibly, to sleep or stop again in the freeze itself: so one that sleeps so is frozen.
func asleep(pid int) error {
	task := strconv.Itoa(pid) + "/task"
	threads, err := os.ReadDir("/proc/" + task)
	if err != nil {
		return err
	}
	for _, thread := range threads {
		now, err := proc.Read(task + "/" + thread.Name())
		if proc.Over(err) {
			continue
		}
		if err != nil {
			return err
		}
		// Sleeping, stopped, traced, or ended.
		if !strings.Contains("STtZX", now.State) {
			return fmt.Errorf("thread %s is in state %s: %w", thread.Name(), now.State, errRuns)
		}
	}
	return nil
}
