package volatile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// maxFile bounds files of /proc that no process makes long: the longest are 340 lines of an id map.
const maxFile = 64 << 10

// identity is who a process is: files of /proc that the kernel answers without looking at the process's memory.
type identity struct {
	stat           stat
	comm           string
	namespacePIDs  []int
	tracer         int
	credentials    *evidence.VolatileCredentials
	namespaces     *evidence.VolatileNamespaces
	uidMap, gidMap []evidence.VolatileIDMapping
	cgroups        []evidence.Text
	oomScore       int
	oomAdjust      int
}

func readIdentity(h *handle, found *findings) (identity, error) {
	var id identity
	var err error
	if id.stat, err = h.stat("stat"); err != nil {
		return id, err
	}
	status, _, err := h.read("status", maxFile)
	if err != nil {
		return id, err
	}
	fields := statusFields(status)
	id.tracer, _ = strconv.Atoi(fields["TracerPid"])
	for _, field := range strings.Fields(fields["NSpid"]) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return id, fmt.Errorf("read NSpid: %w", err)
		}
		id.namespacePIDs = append(id.namespacePIDs, pid)
	}
	if id.credentials, err = credentials(fields); err != nil {
		found.add("credentials", GapUnreadable, err)
	}
	comm, _, err := h.read("comm", maxFile)
	if err != nil {
		return id, err
	}
	id.comm = strings.TrimSuffix(comm, "\n")
	id.namespaces = readNamespaces(h, found)
	id.uidMap = readIDMap(h, "uid_map", found)
	id.gidMap = readIDMap(h, "gid_map", found)
	id.cgroups = readCgroups(h, found)
	id.oomScore = readNumber(h, "oom_score", found)
	id.oomAdjust = readNumber(h, "oom_score_adj", found)
	return id, nil
}

func statusFields(status string) map[string]string {
	fields := map[string]string{}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

func credentials(fields map[string]string) (*evidence.VolatileCredentials, error) {
	uids, uidErr := fourIDs(fields["Uid"])
	gids, gidErr := fourIDs(fields["Gid"])
	groups, groupErr := numbers(fields["Groups"])
	mode, modeErr := strconv.Atoi(fields["Seccomp"])
	// Before Linux 5.9 the number of filters is not shown.
	filters, _ := strconv.Atoi(fields["Seccomp_filters"])
	return &evidence.VolatileCredentials{
		UIDs: uids, GIDs: gids, Groups: groups,
		Capabilities: evidence.VolatileCapabilities{
			Inheritable: fields["CapInh"], Permitted: fields["CapPrm"], Effective: fields["CapEff"],
			Bounding: fields["CapBnd"], Ambient: fields["CapAmb"],
		},
		NoNewPrivs:  fields["NoNewPrivs"] == "1",
		SeccompMode: mode, SeccompFilters: filters,
	}, errors.Join(uidErr, gidErr, groupErr, modeErr)
}

func numbers(text string) ([]uint32, error) {
	found := []uint32{}
	for _, field := range strings.Fields(text) {
		number, err := strconv.ParseUint(field, 10, 32)
		if err != nil {
			return found, err
		}
		found = append(found, uint32(number))
	}
	return found, nil
}

func fourIDs(text string) (evidence.VolatileIDs, error) {
	ids, err := numbers(text)
	if err != nil || len(ids) != 4 {
		return evidence.VolatileIDs{}, fmt.Errorf("read ids %q: %w", text, errors.Join(err, errStat))
	}
	return evidence.VolatileIDs{Real: ids[0], Effective: ids[1], Saved: ids[2], Filesystem: ids[3]}, nil
}

// readNamespaces reads the links, which name the inodes. A kernel without one of them has no such file.
func readNamespaces(h *handle, found *findings) *evidence.VolatileNamespaces {
	n := &evidence.VolatileNamespaces{}
	for name, inode := range map[string]*uint64{
		"cgroup": &n.Cgroup, "ipc": &n.IPC, "mnt": &n.Mount, "net": &n.Network, "pid": &n.PID,
		"pid_for_children": &n.PIDForChildren, "time": &n.Time, "time_for_children": &n.TimeForChildren,
		"user": &n.User, "uts": &n.UTS,
	} {
		link, err := h.link(h.through + "ns/" + name)
		if err == nil {
			*inode, err = inodeOf(link)
		}
		if err != nil && !gone(err) {
			found.add("namespaces", GapUnreadable, err)
		}
	}
	return n
}

// inodeOf takes the number out of a link such as `net:[4026531840]` or `socket:[123]`.
func inodeOf(link string) (uint64, error) {
	_, number, _ := strings.Cut(link, ":[")
	inode, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read inode of %q: %w", link, err)
	}
	return inode, nil
}

func readIDMap(h *handle, name string, found *findings) []evidence.VolatileIDMapping {
	content, more, err := h.read(name, maxFile)
	if err != nil {
		found.add(name, reasonOf(err), err)
		return nil
	}
	if more {
		found.add(name, GapLimit, limited("a longer file", maxFile))
	}
	var mappings []evidence.VolatileIDMapping
	for line := range strings.Lines(content) {
		ids, err := numbers(line)
		if err != nil || len(ids) != 3 {
			found.add(name, GapUnreadable, fmt.Errorf("read %q: %w", line, errors.Join(err, errStat)))
			return mappings
		}
		mappings = append(mappings, evidence.VolatileIDMapping{Inside: ids[0], Outside: ids[1], Count: ids[2]})
	}
	return mappings
}

func readCgroups(h *handle, found *findings) []evidence.Text {
	content, more, err := h.read("cgroup", maxFile)
	if err != nil {
		found.add("cgroups", reasonOf(err), err)
		return nil
	}
	if more {
		found.add("cgroups", GapLimit, limited("a longer file", maxFile))
	}
	var cgroups []evidence.Text
	for line := range strings.Lines(content) {
		cgroups = append(cgroups, evidence.Text(strings.TrimSuffix(line, "\n")))
	}
	return cgroups
}

func readNumber(h *handle, name string, found *findings) int {
	content, _, err := h.read(name, 64)
	if err == nil {
		var number int
		if number, err = strconv.Atoi(strings.TrimSpace(content)); err == nil {
			return number
		}
	}
	found.add(name, reasonOf(err), err)
	return 0
}

// readLabel is apart from the rest: the file can be refused, or wait, while the process is frozen.
func readLabel(h *handle, _ *findings) (string, error) {
	label, _, err := h.read(h.through+"attr/current", 4<<10)
	if errors.Is(err, unix.EINVAL) || gone(err) {
		// No security module has labels.
		return "", nil
	}
	return strings.TrimRight(label, "\n\x00"), err
}
