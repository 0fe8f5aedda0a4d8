package volatile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/proc"
)

var errMountinfo = errors.New("not a line of mountinfo")

// mounts are those that a process sees.
type mounts struct {
	list []evidence.VolatileMount
	// digest is over the lines that were kept: processes with the same one see the same mounts.
	digest [sha256.Size]byte
}

func readMounts(h *handle, limit int, found *findings) (mounts, error) {
	var m mounts
	sum := sha256.New()
	total := 0
	var broken error
	err := h.lines(h.through+"mountinfo", func(line string) bool {
		if total++; total > limit {
			return true
		}
		mount, err := parseMount(line)
		if err != nil {
			broken = fmt.Errorf("read mountinfo: %q: %w", line, err)
			return false
		}
		_, _ = sum.Write([]byte(line + "\n")) // a hash takes everything
		m.list = append(m.list, mount)
		return true
	})
	if total > limit {
		found.add("mounts", GapLimit, limited(fmt.Sprintf("%d mounts", total), int64(limit)))
	}
	m.digest = [sha256.Size]byte(sum.Sum(nil))
	flagCovered(m.list)
	return m, errors.Join(err, broken)
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

func unescape(field string) evidence.Text { return evidence.Text(proc.Unescape(field)) }

type place struct {
	parent int
	point  string
}

// flagCovered finds the mounts that no path leads to: the way to them crosses another mount of the same parent further up,
// or ends on one that lies on them, or they belong to a mount that is itself behind one.
func flagCovered(list []evidence.VolatileMount) {
	at := make(map[place]int, len(list))
	index := make(map[int]int, len(list))
	for i, mount := range list {
		at[place{mount.Parent, string(mount.Point)}] = mount.ID
		index[mount.ID] = i
	}
	for i := range list {
		if on := at[place{list[i].ID, string(list[i].Point)}]; on != list[i].ID {
			list[i].CoveredBy = on
		}
		if list[i].CoveredBy == 0 {
			list[i].CoveredBy = crossed(at, list[i])
		}
		// A mount can have been cut off with its parent; the depth bounds a list that the kernel would never make.
		for parent, depth := list[i].Parent, 0; list[i].CoveredBy == 0 && depth < len(list); depth++ {
			above, ok := index[parent]
			if !ok || list[above].Parent == parent {
				break
			}
			list[i].CoveredBy = crossed(at, list[above])
			parent = list[above].Parent
		}
	}
}

// crossed returns the mount on a folder above a mount's point, of the same parent.
func crossed(at map[place]int, mount evidence.VolatileMount) int {
	for point := string(mount.Point); point != "/" && point != "." && point != ""; {
		point = path.Dir(point)
		if id := at[place{mount.Parent, point}]; id != 0 && id != mount.ID {
			return id
		}
	}
	return 0
}
