package archive

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	// maxRecords is how many bytes the path and the attributes of an entry may take: readers, Go's among them, refuse an
	// extended header above 1 MiB, and then the whole archive. What is left of that is for the target of a symbolic
	// link, at most 4 KiB, and the times and numbers.
	maxRecords = 1<<20 - 16<<10
	// recordCost is what an attribute's record takes beside its name and value.
	recordCost = len("1048576 SCHILY.xattr.=\n")
)

// attributeBuffer is the kernel's bound on one list of names and on one value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const attributeBuffer = 64 << 10

var errAttributesTooLarge = errors.New("does not fit into the extended header")

type xattr struct {
	name  string
	value []byte
}

// key is the name as the archive spells it. GNU tar's encoding of '%' and '=', which would end the key, and the same
// for a name that is not UTF-8.
func (x xattr) key() string {
	if utf8.ValidString(x.name) && !strings.ContainsAny(x.name, "%=") {
		return x.name
	}
	var key strings.Builder
	valid := utf8.ValidString(x.name)
	for i := range len(x.name) {
		b := x.name[i]
		if b == '%' || b == '=' || (!valid && b >= utf8.RuneSelf) {
			fmt.Fprintf(&key, "%%%02X", b)
			continue
		}
		key.WriteByte(b)
	}
	return key.String()
}

// attributeSource lists and gets the attributes of one object, by descriptor or by path.
type attributeSource struct {
	list func(buffer []byte) (int, error)
	get  func(name string, buffer []byte) (int, error)
}

func attributesOf(fd int) attributeSource {
	return attributeSource{
		list: func(buffer []byte) (int, error) { return unix.Flistxattr(fd, buffer) },
		get:  func(name string, buffer []byte) (int, error) { return unix.Fgetxattr(fd, name, buffer) },
	}
}

// attributesAt reads the attributes of what must not be opened: links, devices, fifos. Only our own descriptor of the
// folder is passed through; the last element is never followed.
func attributesAt(folder int, name string) attributeSource {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", folder, name)
	return attributeSource{
		list: func(buffer []byte) (int, error) { return unix.Llistxattr(path, buffer) },
		get:  func(name string, buffer []byte) (int, error) { return unix.Lgetxattr(path, name, buffer) },
	}
}

// read returns all attributes, sorted by name, whose records fit into room. With an error it returns those that it could
// read; the error names the others.
func (s attributeSource) read(buffer []byte, room int) ([]xattr, error) {
	n, err := s.list(buffer)
	switch {
	case errors.Is(err, unix.ENOTSUP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list attributes: %w", err)
	case n == 0:
		return nil, nil
	}
	names := strings.Split(strings.TrimSuffix(string(buffer[:n]), "\x00"), "\x00")
	sort.Strings(names)
	var attributes []xattr
	var failed []error
	for _, name := range names {
		n, err := s.get(name, buffer)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("read attribute %q: %w", name, err))
			continue
		}
		attribute := xattr{name: name, value: append([]byte{}, buffer[:n]...)}
		cost := recordCost + len(attribute.key()) + n
		if cost > room {
			failed = append(failed, fmt.Errorf("attribute %q: %w", name, errAttributesTooLarge))
			continue
		}
		room -= cost
		attributes = append(attributes, attribute)
	}
	return attributes, errors.Join(failed...)
}
