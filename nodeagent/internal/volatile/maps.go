package volatile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

var errMaps = errors.New("not a line of maps")

// area is one mapping of a process.
type area struct {
	start, end, offset uint64
	permissions        string
	device             string
	inode              uint64
	path               string
}

// parseArea reads a line such as `7f00-7f01 rw-p 00000000 08:01 123   /path`.
func parseArea(line string) (area, error) {
	fields := strings.SplitN(line, " ", 6)
	if len(fields) < 5 {
		return area{}, errMaps
	}
	low, high, _ := strings.Cut(fields[0], "-")
	start, startErr := strconv.ParseUint(low, 16, 64)
	end, endErr := strconv.ParseUint(high, 16, 64)
	offset, offsetErr := strconv.ParseUint(fields[2], 16, 64)
	inode, inodeErr := strconv.ParseUint(fields[4], 10, 64)
	a := area{start: start, end: end, offset: offset, permissions: fields[1], inode: inode}
	if len(fields) == 6 {
		a.path = strings.TrimLeft(fields[5], " ")
	}
	major, minor, _ := strings.Cut(fields[3], ":")
	majorNumber, majorErr := strconv.ParseUint(major, 16, 32)
	minorNumber, minorErr := strconv.ParseUint(minor, 16, 32)
	a.device = device(uint32(majorNumber), uint32(minorNumber))
	return a, errors.Join(startErr, endErr, offsetErr, inodeErr, majorErr, minorErr)
}

// minPath is how much of a path is kept always, as JSON: the kernel's own names for its mappings and most of its objects.
const minPath = 64

// shorten cuts a path that takes more room, and holds nothing of its line then.
func (a *area) shorten(room int) bool {
	kept := beginning(a.path, room)
	if kept == a.path {
		return false
	}
	a.path, a.permissions = strings.Clone(kept), strings.Clone(a.permissions)
	return true
}

func (a area) record() evidence.VolatileMapping {
	return evidence.VolatileMapping{
		Start: strconv.FormatUint(a.start, 16), End: strconv.FormatUint(a.end, 16), Permissions: a.permissions,
		Offset: strconv.FormatUint(a.offset, 16), Device: a.device, Inode: a.inode, Path: evidence.Text(a.path),
	}
}

// mapping is what a process's maps say.
type mapping struct {
	areas                           []area
	total                           int
	read                            bool
	argsAnonymous, environAnonymous bool
}

// readMaps reads all lines and keeps those up to the limit.
func readMaps(h *handle, limit int, found *findings) (mapping, error) {
	var m mapping
	process, err := h.stat(h.through + "stat")
	if err != nil {
		return m, err
	}
	args := covered{next: process.argsStart, end: process.argsEnd}
	environ := covered{next: process.environStart, end: process.environEnd}
	var broken error
	var long cuts
	room := maxEncoded
	err = h.lines(h.through+"maps", func(line string, cut bool) bool {
		a, err := parseArea(line)
		if err != nil {
			broken = fmt.Errorf("read maps: %q: %w", line, err)
			return false
		}
		m.total++
		args.add(a)
		environ.add(a)
		if len(m.areas) >= limit {
			return true
		}
		if a.shorten(max(room, minPath)) || cut {
			long.add(strconv.FormatUint(a.start, 16))
		}
		room -= encodedSize(a.path)
		m.areas = append(m.areas, a)
		return true
	})
	if m.total > limit {
		found.add("maps", GapLimit, limited(fmt.Sprintf("%d mappings", m.total), int64(limit)))
	}
	if long.total > 0 {
		found.add("maps", GapLimit, fmt.Errorf("the paths of %d mappings are cut, %w: %v", long.total, errLong, &long))
	}
	m.argsAnonymous, m.environAnonymous = args.whole(), environ.whole()
	err = errors.Join(err, broken)
	m.read = err == nil
	return m, err
}

// covered follows whether a range lies in anonymous memory as a whole.
type covered struct{ next, end uint64 }

func (c *covered) add(a area) {
	if a.inode == 0 && a.start <= c.next && c.next < a.end {
		c.next = a.end
	}
}

func (c *covered) whole() bool { return c.next >= c.end }

// readRollup sums up the mappings.
func readRollup(h *handle, _ *findings) (*evidence.VolatileMemory, error) {
	memory := &evidence.VolatileMemory{}
	sums := map[string]*int64{
		"Rss": &memory.Resident, "Pss": &memory.Proportional, "Shared_Clean": &memory.SharedClean,
		"Shared_Dirty": &memory.SharedDirty, "Private_Clean": &memory.PrivateClean, "Private_Dirty": &memory.PrivateDirty,
		"Anonymous": &memory.Anonymous, "Swap": &memory.Swapped, "Locked": &memory.Locked,
	}
	var broken error
	err := h.lines(h.through+"smaps_rollup", func(line string, _ bool) bool {
		name, value, _ := strings.Cut(line, ":")
		sum := sums[name]
		if sum == nil {
			return true
		}
		kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			broken = fmt.Errorf("read smaps_rollup: %q: %w", line, err)
		}
		*sum = kilobytes << 10
		return broken == nil
	})
	return memory, errors.Join(err, broken)
}
