package freeze

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mover moves processes into a cgroup2 folder.
type mover struct {
	folder string
	// freezer is the root of the v1 freezer's tree, empty where processes stay in it as they are.
	freezer string
}

// moveAll returns those that were moved, and why another one was not.
//
// It writes on a thread that has joined the node's cgroup namespace, that of process 1: where cgroup2 is mounted with
// nsdelegate, as systemd does, the kernel moves no process into or out of what the writer's namespace does not show. The
// thread is not handed back: it ends with its goroutine. Between folders of different cpusets the kernel asks for
// CAP_SYS_NICE as well, and an older one wherever the cpuset controller is on.
func (m mover) moveAll(strays []Stray) (moved []Stray, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = joinCgroupNamespace("/proc/1/ns/cgroup"); err != nil {
			return
		}
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
		err = errors.Join(errs...)
	}()
	<-done
	return moved, err
}

func joinCgroupNamespace(file string) error {
	descriptor, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	err = unix.Setns(descriptor, unix.CLONE_NEWCGROUP)
	if err := errors.Join(err, unix.Close(descriptor)); err != nil {
		return fmt.Errorf("join the cgroup namespace of %s: %w", file, err)
	}
	return nil
}

// move says whether the process is in the folder now. No call moves a process rather than a number, so its start time is
// looked at right before: the kernel gives a number again only after all others, which takes longer than from here to the
// write.
func (m mover) move(stray Stray) (bool, error) {
	now, err := readStat(strconv.Itoa(stray.PID))
	if ended(err) || (err == nil && (now.started != stray.StartTime || now.over)) {
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

func (m mover) write(folder string, process int) error {
	return os.WriteFile(filepath.Join(folder, "cgroup.procs"), strconv.AppendInt(nil, int64(process), 10), 0)
}

// ended says that a process or a thread is over.
func ended(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

var errStat = errors.New("not a stat file")

// stat is what is read of the stat file of a process or a thread.
type stat struct {
	state string
	// over says that it ended, all its threads with it, and waits for its parent to notice.
	over bool
	// started in clock ticks since the boot.
	started uint64
}

// readStat reads the stat file of a process, or of the thread of one: its id may be `PID` or `PID/task/TID`. The fields
// begin behind the name, which may hold spaces and parentheses.
func readStat(id string) (stat, error) {
	content, err := os.ReadFile("/proc/" + id + "/stat")
	if err != nil {
		return stat{}, err
	}
	// 71 (name) state 3, ... number of threads 20, ... start time 22
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("read /proc/%s/stat: %w", id, errStat)
	}
	started, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("read /proc/%s/stat: %w", id, err)
	}
	alone := fields[17] == "1" || fields[17] == "0"
	return stat{fields[0], alone && strings.Contains("ZX", fields[0]), started}, nil
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
		case !ended(err):
			errs = append(errs, fmt.Errorf("stop process %d: %w", stray.PID, err))
		}
	}
	return stopped, errors.Join(errs...)
}

var errRuns = errors.New("not frozen within the bound")

// asleep says whether every thread of a process in a frozen cgroup is stopped. The freeze wakes each thread that sleeps
// interruptibly, to sleep or stop again in the freeze itself: so one that sleeps so is frozen.
func asleep(process int) error {
	task := strconv.Itoa(process) + "/task"
	threads, err := os.ReadDir("/proc/" + task)
	if err != nil {
		return err
	}
	for _, thread := range threads {
		now, err := readStat(task + "/" + thread.Name())
		if ended(err) {
			continue
		}
		if err != nil {
			return err
		}
		// Sleeping, stopped, traced, or ended.
		if !strings.Contains("STtZX", now.state) {
			return fmt.Errorf("thread %s is in state %s: %w", thread.Name(), now.state, errRuns)
		}
	}
	return nil
}
