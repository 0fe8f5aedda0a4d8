package volatile

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

var errMountinfo = errors.New("not a line of mountinfo")

// mounts are those that a process sees.
type mounts struct {
	list []evidence.VolatileMount
	// digest is over the lines that were kept, and the beginnings of those that are too long: processes with the same one see the same mounts.
	digest [sha256.Size]byte
}

// maxMountinfo bounds the text that is read of the list of mounts of one process, and of all lists that tell which mounts a
// path leads to: 100,000 lines, which is how many mounts the kernel lets a namespace have by default, of 640 bytes. A process
// that nests folders makes them as long as it likes.
const maxMountinfo = 64 << 20

// bounded is text of which no more than left bytes are read; what is longer is an error.
type bounded struct {
	from io.Reader
	left *int64
}

func (b bounded) Read(buffer []byte) (int, error) {
	if *b.left == 0 {
		return 0, errLimit{limited("more text", maxMountinfo)}
	}
	n, err := b.from.Read(buffer[:min(int64(len(buffer)), *b.left)])
	*b.left -= int64(n)
	return n, err
}

// scanMounts calls line for each line of a list of mounts, as scan does.
func scanMounts(from io.Reader, left *int64, line func(text string, cut bool) bool) error {
	return scan(bounded{from, left}, "mountinfo", line)
}

// notFlagged is what the flags of mounts lack where some are left out.
const notFlagged = "mounts that are covered by one that is left out are not flagged"

// readMounts reads the mounts up to the limit. Those whose lines are too long are left out.
func readMounts(h *handle, limit int, found *findings) (mounts, error) {
	file, err := h.file(h.through + "mountinfo")
	if err != nil {
		return mounts{}, err
	}
	defer func() { _ = file.Close() }()
	var m mounts
	sum := sha256.New()
	total, long, room, left := 0, 0, maxEncoded, int64(maxMountinfo)
	var broken error
	err = scanMounts(file, &left, func(line string, cut bool) bool {
		if total++; total > limit {
			return true
		}
		_, _ = sum.Write([]byte(line + "\n")) // a hash takes everything
		if cut || len(line) > room {
			long++
			return true
		}
		mount, err := parseMount(line)
		if err != nil {
			broken = fmt.Errorf("read mountinfo: %q: %w", line, err)
			return false
		}
		// The line is held, and it is longer where the kernel escaped it.
		size := max(len(line), sizeOfMount(mount))
		if size > room {
			long++
			return true
		}
		room -= size
		m.list = append(m.list, mount)
		return true
	})
	if total > limit {
		found.add("mounts", GapLimit, fmt.Errorf("%w: %s", limited(fmt.Sprintf("%d mounts", total), int64(limit)), notFlagged))
	}
	if long > 0 {
		found.add("mounts", GapLimit, fmt.Errorf("%d mounts are left out, %w: %s", long, errLong, notFlagged))
	}
	m.digest = [sha256.Size]byte(sum.Sum(nil))
	return m, errors.Join(err, broken)
}

// reached is what tells a mount from others: it stands at the beginning of its line, however long that is.
type reached struct {
	id     uint64
	device string
	// whole is whether the filesystem is mounted from its root on.
	whole bool
}

// parseReached holds nothing of its line.
func parseReached(line string) (reached, error) {
	fields := strings.SplitN(line, " ", 5)
	if len(fields) < 4 {
		return reached{}, errMountinfo
	}
	id, err := strconv.ParseUint(fields[0], 10, 64)
	return reached{id, strings.Clone(fields[2]), fields[3] == "/"}, err
}

// parseMount reads a line such as
// `36 35 98:0 /root /point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`.
func parseMount(line string) (evidence.VolatileMount, error) {
	before, after, ok := strings.Cut(line, " - ")
	left, right := strings.Split(before, " "), strings.Split(after, " ")
	if !ok || len(left) < 6 || len(right) < 3 {
		return evidence.VolatileMount{}, errMountinfo
	}
	id, idErr := strconv.Atoi(left[0])
	parent, parentErr := strconv.Atoi(left[1])
	return evidence.VolatileMount{
		ID: id, Parent: parent, Device: left[2], Root: unescape(left[3]), Point: unescape(left[4]),
		Options: unescape(left[5]), Propagation: unescape(strings.Join(left[6:], " ")),
		Type: unescape(right[0]), Source: unescape(right[1]), SuperOptions: unescape(strings.Join(right[2:], " ")),
	}, errors.Join(idErr, parentErr)
}

// sizeOfMount is that of its text as JSON.
func sizeOfMount(mount evidence.VolatileMount) int {
	size := 0
	for _, text := range []evidence.Text{
		mount.Root, mount.Point, mount.Options, mount.Propagation, mount.Type, mount.Source, mount.SuperOptions,
	} {
		size += encodedSize(string(text))
	}
	return size
}

func unescape(field string) evidence.Text { return evidence.Text(proc.Unescape(field)) }

type place struct {
	parent int
	point  string
}

// flagCovered finds the mounts that no path leads to: the way to them crosses another mount of the same parent further up,
// or ends on one that lies on them, or they belong to a mount that is itself behind one. Its time grows with the text of the
// points, however deep and however often something is mounted.
func flagCovered(list []evidence.VolatileMount) {
	at := make(map[place]int, len(list))
	index := make(map[int]int, len(list))
	for i, mount := range list {
		at[place{mount.Parent, string(mount.Point)}] = mount.ID
		index[mount.ID] = i
	}
	behind := crossed(list, at)
	done := make([]bool, len(list))
	for i := range list {
		var way []int
		for on, ok := i, true; ok && !done[on]; on, ok = index[list[on].Parent] {
			done[on] = true
			way = append(way, on)
		}
		// A mount can have been cut off with its parent.
		for _, on := range slices.Backward(way) {
			if above, ok := index[list[on].Parent]; ok && behind[on] == 0 {
				behind[on] = behind[above]
			}
		}
	}
	for i := range list {
		list[i].CoveredBy = behind[i]
		if on := at[place{list[i].ID, string(list[i].Point)}]; on != 0 && on != list[i].ID {
			list[i].CoveredBy = on
		}
	}
}

// crossed finds for each mount that on the nearest folder above its point, of the same parent.
func crossed(list []evidence.VolatileMount, at map[place]int) []int {
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(list[a].Parent, list[b].Parent), comparePoints(string(list[a].Point), string(list[b].Point)))
	})
	behind := make([]int, len(list))
	var above []place // the one before, and those of the folders above it
	for _, i := range order {
		here := place{list[i].Parent, string(list[i].Point)}
		for len(above) > 0 && !above[len(above)-1].holds(here) {
			above = above[:len(above)-1]
		}
		if len(above) > 0 {
			behind[i] = at[above[len(above)-1]]
		}
		above = append(above, here)
	}
	return behind
}

// comparePoints orders folders before what lies in them, and that before anything else.
func comparePoints(a, b string) int {
	same := 0
	for same < len(a) && same < len(b) && a[same] == b[same] {
		same++
	}
	switch {
	case same == len(a) || same == len(b):
		return cmp.Compare(len(a), len(b))
	case a[same] == '/':
		return -1
	case b[same] == '/':
		return 1
	default:
		return cmp.Compare(a[same], b[same])
	}
}

// holds says whether another place of the same parent lies below this one.
func (p place) holds(other place) bool {
	rest, within := strings.CutPrefix(other.point, strings.TrimSuffix(p.point, "/"))
	return p.parent == other.parent && within && p.point != other.point && strings.HasPrefix(rest, "/")
}
