package freeze

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

// straysName is the cgroup2 folder in a pod's that its strays are stopped in.
const straysName = "ugallu-strays"

// Stray is a process of a pod that the freeze of its containers does not reach.
type Stray struct {
	PID int
	// StartTime is field 22 of its stat file, clock ticks since the boot: a later process with the same id has another.
	StartTime uint64
}

// Stop moves each stray into a frozen cgroup2 folder of its own below the pod's, on both kinds of node, and returns how
// many are confirmed not to run. The others that exist are named in the error, each by its id and reason. A stray that is
// over, or whose id another process has by now, is left out without an error. What is stopped stays stopped, and a folder
// that was set going is frozen again, without strays as well.
//
// Children that a stray starts before it is moved are not moved with it: look again, until no stray is left. With the
// method CgroupV1 a stray leaves the v1 freezer's tree for its root: whoever froze it there could thaw it, and a
// process frozen twice is never confirmed.
func (f *Freezer) Stop(ctx context.Context, podCgroup string, strays []Stray) (stopped int, err error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if podCgroup == "" {
		return 0, fmt.Errorf("stop %d strays: %w", len(strays), ErrNoCgroup)
	}
	to := mover{folder: filepath.Join(podCgroup, straysName)}
	if len(strays) > 0 {
		err = os.Mkdir(to.folder, 0o700)
	} else if _, err = os.Stat(to.folder); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("stop %d strays: %w", len(strays), err)
	}
	if f.method == v1alpha1.FreezeCgroupV1 {
		// Where in the tree a mount begins is shown as the reader's cgroup namespace has it.
		err := proc.OnNode(func() (err error) {
			to.freezer, err = freezerRoot()
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	// Frozen first: what is moved in stops at once, and none of it thaws the rest.
	if err := os.WriteFile(filepath.Join(to.folder, "cgroup.freeze"), []byte("1"), 0); err != nil {
		return 0, fmt.Errorf("stop %d strays: %w", len(strays), err)
	}
	moved, err := to.moveAll(strays)
	stopped, confirmErr := confirm(ctx, to.folder, moved)
	return stopped, errors.Join(err, confirmErr)
}

// StartStrays sets what Stop stopped going again, where it is now. Without the folder there is nothing to set going.
func (f *Freezer) StartStrays(ctx context.Context, podCgroup string) error {
	if podCgroup == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	if _, err := setFrozen(ctx, filepath.Join(podCgroup, straysName), Thawed); err != nil {
		return fmt.Errorf("set the strays of %s going: %w", podCgroup, err)
	}
	return nil
}

// Stopped returns the folder that Stop froze and how many processes are in it. The folder is empty when there is none or it
// was set going.
func (f *Freezer) Stopped(podCgroup string) (folder string, processes int, err error) {
	if podCgroup == "" {
		return "", 0, nil
	}
	folder = filepath.Join(podCgroup, straysName)
	frozen, err := os.ReadFile(filepath.Join(folder, "cgroup.freeze")) // #nosec G304 -- a file of a cgroup
	if vanished(err) || (err == nil && strings.TrimSpace(string(frozen)) != "1") {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("look at the strays of %s: %w", podCgroup, err)
	}
	list, err := listed(folder)
	if err != nil && !vanished(err) {
		return "", 0, fmt.Errorf("look at the strays of %s: %w", podCgroup, err)
	}
	return folder, len(list), nil
}

// listed returns the processes in a cgroup. A threaded one lists its threads only.
func listed(folder string) (map[string]bool, error) {
	found := map[string]bool{}
	list, err := os.ReadFile(filepath.Join(folder, "cgroup.procs")) // #nosec G304 -- a file of a cgroup
	if !errors.Is(err, unix.EOPNOTSUPP) {
		for process := range strings.FieldsSeq(string(list)) {
			found[process] = true
		}
		return found, err
	}
	list, err = os.ReadFile(filepath.Join(folder, "cgroup.threads")) // #nosec G304 -- a file of a cgroup
	for thread := range strings.FieldsSeq(string(list)) {
		status, err := os.ReadFile("/proc/" + thread + "/status")
		_, after, cut := strings.Cut(string(status), "\nTgid:")
		if process, _, _ := strings.Cut(after, "\n"); err == nil && cut {
			found[strings.TrimSpace(process)] = true
		}
	}
	return found, err
}
