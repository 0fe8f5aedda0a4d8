package volatile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// kcmpFiles is KCMP_FILES of kcmp(2).
const kcmpFiles = 2

// threads are those of one process.
type threads struct {
	list  []evidence.VolatileThread
	total int
}

func readThreads(h *handle, limit int, network uint64, found *findings) (threads, error) {
	var t threads
	known := tables{h.reader()}
	err := h.names("task", func(name string) bool {
		if t.total++; t.total > limit {
			return true
		}
		tid, err := strconv.Atoi(name)
		if err == nil {
			var thread evidence.VolatileThread
			if thread, err = readThread(h, tid, network, &known, found); err == nil {
				t.list = append(t.list, thread)
			}
		}
		if err != nil && !gone(err) {
			found.add("threads", reasonOf(err), fmt.Errorf("thread %s: %w", name, err))
		}
		return true
	})
	if t.total > limit {
		found.add("threads", GapLimit, limited(fmt.Sprintf("%d threads", t.total), int64(limit)))
	}
	return t, err
}

func readThread(h *handle, tid int, network uint64, tables *tables, found *findings) (evidence.VolatileThread, error) {
	folder := threadFolder(tid)
	stat, err := h.stat(folder + "stat")
	if err != nil {
		return evidence.VolatileThread{}, err
	}
	comm, _, err := h.read(folder+"comm", 64)
	if err != nil {
		return evidence.VolatileThread{}, err
	}
	thread := evidence.VolatileThread{
		TID: tid, State: stat.state, StartTicks: stat.started, Comm: evidence.Text(strings.TrimSuffix(comm, "\n")),
	}
	// Each of these may be compiled out, or be refused: that is the same for all threads, and named once a reason.
	optional := func(name string) string {
		content, _, err := h.read(folder+name, 8<<10)
		if err != nil && !gone(err) {
			found.once(name, GapUnreadable, err)
		}
		return strings.TrimSpace(content)
	}
	if thread.Wait = optional("wchan"); thread.Wait == "0" {
		thread.Wait = ""
	}
	thread.Syscall = optional("syscall")
	for line := range strings.Lines(optional("stack")) {
		thread.Stack = append(thread.Stack, strings.TrimSuffix(line, "\n"))
	}
	if link, err := h.link(folder + "ns/net"); err == nil {
		if inode, err := inodeOf(link); err == nil && inode != network {
			thread.Network = inode
		}
	}
	if stat.state != "Z" && stat.state != "X" {
		thread.OwnDescriptors = tables.first(tid, found)
	}
	return thread, nil
}

func threadFolder(tid int) string { return "task/" + strconv.Itoa(tid) + "/" }

// reader is the thread whose files stand for the process.
func (h *handle) reader() int {
	if h.through == "" {
		return h.PID
	}
	tid, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimPrefix(h.through, "task/"), "/"))
	return tid
}

// maxTables is how many tables of descriptors of one process are read; programs have one.
const maxTables = 64

var errTables = errors.New("more tables of descriptors")

// tables are threads with different tables of descriptors, one for each table; the first is that which is read anyway.
type tables []int

// first says whether a thread is the first one seen with its table.
func (t *tables) first(tid int, found *findings) bool {
	for _, known := range *t {
		same, err := sameDescriptors(known, tid)
		if gone(err) {
			return false
		}
		if err != nil {
			found.once("descriptors", GapUnreadable, fmt.Errorf("compare the tables of threads: %w", err))
			return false
		}
		if same {
			return false
		}
	}
	if len(*t) >= maxTables {
		found.once("descriptors", GapLimit, fmt.Errorf("%w than %d", errTables, maxTables))
		return false
	}
	*t = append(*t, tid)
	return true
}

// sameDescriptors says whether two threads have the same table of descriptors.
func sameDescriptors(one, other int) (bool, error) {
	if one == other {
		return true, nil
	}
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(one), uintptr(other), kcmpFiles, 0, 0, 0) // #nosec G115 -- ids
	if errno != 0 {
		return false, errno
	}
	return order == 0, nil
}

// findThrough chooses a thread that lives where the main one has ended: the kernel shows nothing of a process through a
// thread that has ended.
func findThrough(h *handle, _ *findings) (string, error) {
	through := ""
	err := h.names("task", func(name string) bool {
		stat, err := h.stat("task/" + name + "/stat")
		if err == nil && stat.state != "Z" && stat.state != "X" {
			through = "task/" + name + "/"
		}
		return through == ""
	})
	if gone(err) {
		err = nil
	}
	return through, err
}

// once adds a finding unless the same part and reason is there.
func (f *findings) once(part, reason string, cause error) {
	for _, have := range *f {
		if have.part == part && have.reason == reason && errors.Is(have.cause, rootOf(cause)) {
			return
		}
	}
	f.add(part, reason, cause)
}

func rootOf(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
