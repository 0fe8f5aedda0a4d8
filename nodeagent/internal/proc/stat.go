package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// exiting is the kernel's PF_EXITING: the thread runs no code of its program any more.
const exiting = 0x4

// Stat is what is read of a stat file.
type Stat struct {
	// State is the letter that the kernel gives, such as S or Z.
	State  string
	Parent int
	// Exiting says that the thread runs nothing of its program any more.
	Exiting bool
	// Ended says that the process ended, all its threads with it, and waits for its parent to notice.
	Ended bool
	// Started in clock ticks since the boot: with its id it names this process and no later one.
	Started uint64
}

var errStat = errors.New("not a stat file")

// parse takes the fields after the name, which may itself hold spaces and parentheses.
func parse(content []byte) (Stat, error) {
	// 71 (name) state 3, parent 4, ... flags 9, ... number of threads 20, ... start time 22
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	if len(fields) < 20 {
		return Stat{}, errStat
	}
	parent, err := strconv.Atoi(fields[1])
	flags, flagsErr := strconv.ParseUint(fields[6], 10, 64)
	started, startErr := strconv.ParseUint(fields[19], 10, 64)
	alone := fields[17] == "1" || fields[17] == "0"
	return Stat{
		State: fields[0], Parent: parent, Exiting: flags&exiting != 0,
		Ended: alone && strings.Contains("ZX", fields[0]), Started: started,
	}, errors.Join(err, flagsErr, startErr)
}

// Read reads the stat file of a process, or of the thread of one: its id may be `PID` or `PID/task/TID`.
func Read(id string) (Stat, error) {
	content, err := os.ReadFile("/proc/" + id + "/stat")
	if err != nil {
		return Stat{}, fmt.Errorf("look at process %s: %w", id, err)
	}
	found, err := parse(content)
	if err != nil {
		return Stat{}, fmt.Errorf("read /proc/%s/stat: %w", id, err)
	}
	return found, nil
}

// Started returns the start time of a process.
func Started(pid int) (uint64, error) {
	found, err := Read(strconv.Itoa(pid))
	return found.Started, err
}

// Over says of an error that the process or thread that was looked at is gone.
func Over(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
