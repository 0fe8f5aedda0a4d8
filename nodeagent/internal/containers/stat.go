package containers

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// exiting is the kernel's PF_EXITING: the thread runs no code of its program any more.
const exiting = 0x4

// stat is what is read of a /proc/PID/stat file.
type stat struct {
	parent  int
	exiting bool
	// started in clock ticks since the boot.
	started uint64
}

var errStat = errors.New("not a stat file")

// parseStat takes the fields after the name, which may itself hold spaces and parentheses.
func parseStat(content string) (stat, error) {
	// 71 (name) state 3, parent 4, ... flags 9, ... start time 22
	fields := strings.Fields(content[strings.LastIndexByte(content, ')')+1:])
	if len(fields) < 20 {
		return stat{}, errStat
	}
	parent, err := strconv.Atoi(fields[1])
	flags, flagsErr := strconv.ParseUint(fields[6], 10, 64)
	started, startErr := strconv.ParseUint(fields[19], 10, 64)
	return stat{parent, flags&exiting != 0, started}, errors.Join(err, flagsErr, startErr)
}

// readStat reads the stat file of a process, or of the thread of one: its id may be `PID` or `PID/task/TID`.
func readStat(id string) (stat, error) {
	content, err := os.ReadFile("/proc/" + id + "/stat")
	if err != nil {
		return stat{}, fmt.Errorf("look at process %s: %w", id, err)
	}
	found, err := parseStat(string(content))
	if err != nil {
		return stat{}, fmt.Errorf("read /proc/%s/stat: %w", id, err)
	}
	return found, nil
}

// startTime of a process: with its id it names that process and no later one.
func startTime(process int) (uint64, error) {
	found, err := readStat(strconv.Itoa(process))
	return found.started, err
}
