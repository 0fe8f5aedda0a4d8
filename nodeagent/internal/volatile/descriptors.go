package volatile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

// descriptors are the open ones of a process.
type descriptors struct {
	list []evidence.VolatileDescriptor
	// networks are network namespaces that a descriptor holds, and the link to it.
	networks map[uint64]string
	// room is how much text is still kept, cut are those of which some was not.
	room int
	cut  cuts
}

// readDescriptors reads the table of a process and those of threads that have their own. Nothing is opened but fdinfo.
func readDescriptors(h *handle, limits Limits, list []evidence.VolatileThread, found *findings) (descriptors, error) {
	d := descriptors{networks: map[uint64]string{}, room: maxEncoded}
	total, err := d.add(h, h.through, 0, limits, found)
	if err != nil {
		return d, err
	}
	for _, thread := range list {
		if !thread.OwnDescriptors {
			continue
		}
		own, err := d.add(h, threadFolder(thread.TID), thread.TID, limits, found)
		total += own
		if err != nil && !gone(err) {
			found.add("descriptors", reasonOf(err), fmt.Errorf("thread %d: %w", thread.TID, err))
		}
	}
	if total > len(d.list) && len(d.list) >= limits.Descriptors {
		found.add("descriptors", GapLimit, limited(fmt.Sprintf("%d descriptors", total), int64(limits.Descriptors)))
	}
	if d.cut.total > 0 {
		found.add("descriptors", GapLimit, fmt.Errorf("the text of %d descriptors is cut, %w: %v", d.cut.total, errEncoded, &d.cut))
	}
	return d, nil
}

func (d *descriptors) add(h *handle, folder string, thread int, limits Limits, found *findings) (total int, err error) {
	err = h.names(folder+"fd", func(name string) bool {
		number, err := strconv.Atoi(name)
		if err != nil {
			return true
		}
		if total++; len(d.list) >= limits.Descriptors {
			return true
		}
		descriptor, err := d.one(h, folder, number, limits.Details, found)
		switch {
		case gone(err):
		case err != nil:
			found.add("descriptors", reasonOf(err), fmt.Errorf("descriptor %d: %w", number, err))
		default:
			descriptor.Thread = thread
			d.shorten(&descriptor)
			d.list = append(d.list, descriptor)
		}
		return true
	})
	return total, err
}

// shorten cuts the target of a descriptor and leaves out details that there is no room for.
func (d *descriptors) shorten(descriptor *evidence.VolatileDescriptor) {
	target := beginning(string(descriptor.Target), max(d.room, minPath))
	size, details := encodedSize(target), 0
	for _, detail := range descriptor.Details {
		more := encodedSize(string(detail))
		if size+more > d.room {
			break
		}
		size += more
		details++
	}
	d.room -= size
	if len(target) == len(descriptor.Target) && details == len(descriptor.Details) {
		return
	}
	name := strconv.Itoa(descriptor.Number)
	if descriptor.Thread != 0 {
		name += fmt.Sprintf(" of thread %d", descriptor.Thread)
	}
	d.cut.add(name)
	descriptor.Target = evidence.Text(strings.Clone(target))
	descriptor.Details = slices.Clone(descriptor.Details[:details])
}

func (d *descriptors) one(h *handle, folder string, number, details int, found *findings) (evidence.VolatileDescriptor, error) {
	name := folder + "fd/" + strconv.Itoa(number)
	descriptor := evidence.VolatileDescriptor{Number: number, Kind: evidence.DescriptorUnknown}
	target, err := h.link(name)
	if errors.Is(err, unix.ENAMETOOLONG) {
		found.add("descriptors", GapUnreadable, err)
	} else if err != nil {
		return descriptor, err
	}
	descriptor.Target = evidence.Text(target)
	if stat, err := h.look(name); err == nil {
		describeDescriptor(&descriptor, stat)
	} else if !gone(err) {
		found.add("descriptors", reasonOf(err), err)
	}
	if strings.HasPrefix(target, "net:[") {
		if inode, err := inodeOf(target); err == nil {
			d.networks[inode] = name
		}
	}
	if descriptor.Kind == evidence.DescriptorSocket {
		descriptor.Protocol = socketProtocol(h, name)
	}
	err = readDescriptorInfo(h, folder+"fdinfo/"+strconv.Itoa(number), &descriptor, details, found)
	return descriptor, err
}

func describeDescriptor(descriptor *evidence.VolatileDescriptor, stat unix.Statx_t) {
	descriptor.Kind = kindOf(stat.Mode, string(descriptor.Target))
	descriptor.Device = device(stat.Dev_major, stat.Dev_minor)
	descriptor.Inode, descriptor.Mode = stat.Ino, uint32(stat.Mode&0o7777)
	switch descriptor.Kind {
	case evidence.DescriptorFile, evidence.DescriptorMemfd:
		descriptor.Size = stat.Size
		descriptor.Deleted = stat.Nlink == 0 || markedDeleted(string(descriptor.Target))
	case evidence.DescriptorDirectory, evidence.DescriptorFIFO, evidence.DescriptorSymlink:
		descriptor.Deleted = markedDeleted(string(descriptor.Target))
	default:
	}
}

func kindOf(mode uint16, target string) evidence.VolatileDescriptorKind {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		switch {
		case strings.HasPrefix(target, "/memfd:"):
			return evidence.DescriptorMemfd
		case target == "" || strings.HasPrefix(target, "/"):
			return evidence.DescriptorFile
		}
		return evidence.DescriptorAnonymous // a namespace, a pidfd
	case unix.S_IFDIR:
		return evidence.DescriptorDirectory
	case unix.S_IFCHR:
		return evidence.DescriptorCharacter
	case unix.S_IFBLK:
		return evidence.DescriptorBlock
	case unix.S_IFIFO:
		return evidence.DescriptorFIFO
	case unix.S_IFSOCK:
		return evidence.DescriptorSocket
	case unix.S_IFLNK:
		return evidence.DescriptorSymlink
	}
	return evidence.DescriptorAnonymous
}

// socketProtocol asks the socket's inode for the name of its protocol, also where no table lists the socket.
func socketProtocol(h *handle, name string) string {
	var buffer [64]byte
	path := fmt.Sprintf("/proc/self/fd/%d/%s", h.fd, name)
	n, err := unix.Getxattr(path, "system.sockprotoname", buffer[:])
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(buffer[:n]), "\x00")
}

// readDescriptorInfo reads lines such as `pos:	0`. What the kernel adds for the kind of object stays as it is.
func readDescriptorInfo(h *handle, name string, descriptor *evidence.VolatileDescriptor, limit int, found *findings) error {
	total := 0
	err := h.lines(name, func(line string, _ bool) bool {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "pos":
			descriptor.Offset, _ = strconv.ParseInt(value, 10, 64)
		case "flags":
			descriptor.Flags = value
		case "mnt_id":
			descriptor.MountID, _ = strconv.ParseInt(value, 10, 64)
		case "ino":
		default:
			if total++; total <= limit {
				descriptor.Details = append(descriptor.Details, evidence.Text(line))
			}
		}
		return true
	})
	if total > limit {
		cause := fmt.Errorf("descriptor %d: %w", descriptor.Number, limited(fmt.Sprintf("%d lines of fdinfo", total), int64(limit)))
		found.add("descriptors", GapLimit, cause)
	}
	return err
}
