package volatile

import (
	"errors"
	"strconv"
	"strings"
)

// stat is what is read of a /proc/PID/stat file.
type stat struct {
	state                    string
	parent, group, session   int
	started                  uint64
	argsStart, argsEnd       uint64
	environStart, environEnd uint64
	flags                    uint64
	utime, stime             uint64
	nice                     int
}

var errStat = errors.New("not a stat file")

// parseStat takes the fields after the name, which may itself hold spaces and parentheses.
func parseStat(content string) (stat, error) {
	// 71 (name) state 3, parent 4, group 5, session 6, ... flags 9, ... utime 14, stime 15, ... nice 19, ... start time 22,
	// ... arguments 48-49, environment 50-51
	fields := strings.Fields(content[strings.LastIndexByte(content, ')')+1:])
	if len(fields) < 49 {
		return stat{}, errStat
	}
	var errs []error
	number := func(field int) uint64 {
		value, err := strconv.ParseUint(fields[field-3], 10, 64)
		errs = append(errs, err)
		return value
	}
	signed := func(field int) int {
		value, err := strconv.Atoi(fields[field-3])
		errs = append(errs, err)
		return value
	}
	found := stat{
		state: fields[0], parent: signed(4), group: signed(5), session: signed(6),
		flags: number(9), utime: number(14), stime: number(15), nice: signed(19), started: number(22),
		argsStart: number(48), argsEnd: number(49), environStart: number(50), environEnd: number(51),
	}
	return found, errors.Join(errs...)
}
