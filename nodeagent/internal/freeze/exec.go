package freeze

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A thread of several in the v1 freezer that executes another program waits until the others of its process are dead, and
// these do not die while they are frozen: who was frozen before its exec got that far keeps the container at FREEZING for
// good. Nothing runs then, but the runtime takes the container for running, and its own list of containers waits for it.
const (
	// execWithin is how long a freeze may stand at FREEZING before such an exec is looked for.
	execWithin = 300 * time.Millisecond
	// throughFor is how long a freeze is undone for it. The exec ends and its process takes the kills.
	throughFor = 5 * time.Millisecond
	// maxThrough bounds how often that is done for one container until it is thawed. Who keeps a hundred processes in execs at
	// every moment is not frozen by more of it, and would run each time.
	maxThrough = 6
)

// inExec are the names of where a thread waits in an exec for the others of its process, by /proc/<thread>/wchan: the
// compiler may make de_thread a part of what calls it, which was flush_old_exec before 5.8, and add its own name after a dot.
var inExec = []string{"begin_new_exec", "flush_old_exec", "de_thread"}

// waitsInExec says whether a thread in a folder of the v1 tree, or below it, waits so. What waits for anything else, as for a
// disk, is frozen when it comes back.
func waitsInExec(folder string) bool {
	found := false
	anyFolder(folder, func(name string) (bool, error) {
		threads, err := os.ReadFile(filepath.Join(name, "tasks")) // #nosec G304 -- a file of a cgroup, where there are no links
		for thread := range strings.FieldsSeq(string(threads)) {
			// Who is gone waits for nobody.
			where, _ := os.ReadFile(filepath.Join("/proc", thread, "wchan")) // #nosec G304 -- a number, by the kernel
			if function, _, _ := strings.Cut(string(where), "."); slices.Contains(inExec, function) {
				found = true
				return true, nil
			}
		}
		return false, err
	})
	return found
}

// letThrough undoes a freeze for a moment. What comes of it the request that follows says.
func letThrough(file string) {
	_ = os.WriteFile(file, []byte(values[Thawed]), 0)
	time.Sleep(throughFor)
}
