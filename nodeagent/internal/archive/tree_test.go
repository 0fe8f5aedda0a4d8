package archive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

// requireRoot skips where the test cannot make device nodes and attributes.
func requireRoot(t testing.TB) {
	t.Helper()
	testneeds.That(t, os.Geteuid() == 0, "needs root")
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// record is everything that must survive a round trip.
type record struct {
	Type       fs.FileMode
	Mode       uint32
	UID, GID   uint32
	Size       int64
	Modified   int64
	Link       string
	Device     uint64
	Attributes map[string]string
	SHA256     string
	// Names of the same object.
	Names []string
}

// scan reads a tree with the plainest calls there are, but for some folders.
func scan(t testing.TB, root string, without ...string) map[string]record {
	t.Helper()
	records, names := map[string]record{}, map[uint64][]string{}
	inodes := map[string]uint64{}
	must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		must(t, err)
		name, err := filepath.Rel(root, path)
		must(t, err)
		if slices.Contains(without, name) {
			return filepath.SkipDir
		}
		var stat unix.Stat_t
		must(t, unix.Lstat(path, &stat))
		r := record{
			Type: entry.Type(), Mode: stat.Mode & 0o7777, UID: stat.Uid, GID: stat.Gid,
			Modified: stat.Mtim.Nano(), Attributes: attributes(t, path),
		}
		switch entry.Type() {
		case 0:
			r.Size, r.SHA256 = stat.Size, hashFile(t, path)
		case fs.ModeSymlink:
			r.Link, err = os.Readlink(path)
			must(t, err)
		case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
			r.Device = stat.Rdev
		}
		if stat.Nlink > 1 && !entry.IsDir() {
			inodes[name] = stat.Ino
			names[stat.Ino] = append(names[stat.Ino], name)
		}
		records[name] = r
		return nil
	}))
	for name, inode := range inodes {
		r := records[name]
		if len(names[inode]) < 2 { // the others are in another layer
			continue
		}
		r.Names = names[inode]
		sort.Strings(r.Names)
		records[name] = r
	}
	return records
}

func attributes(t testing.TB, path string) map[string]string {
	t.Helper()
	buffer := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buffer)
	must(t, err)
	found := map[string]string{}
	for name := range strings.SplitSeq(strings.Trim(string(buffer[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		must(t, err)
		found[name] = string(value[:n])
	}
	return found
}

// hashFile hashes the blocks that are not zero, with their offsets, and reads no hole: the same content gives the same
// hash whatever its holes, and terabytes of nothing take no time.
func hashFile(t testing.TB, path string) string {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer func() { must(t, file.Close()) }()
	sum := sha256.New()
	block, zero := make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); ; {
		data, err := file.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return hex.EncodeToString(sum.Sum(nil))
		}
		must(t, err)
		at = data &^ 4095
		n, err := file.ReadAt(block, at)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if !bytes.Equal(block[:n], zero[:n]) {
			sum.Write(binary.BigEndian.AppendUint64(nil, uint64(at)))
			sum.Write(block[:n])
		}
		at += 4096
	}
}

// makeTree makes one of everything that a root filesystem can hold, and some things only an attacker would put there.
func makeTree(t testing.TB) string {
	t.Helper()
	requireRoot(t)
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	write := func(name, content string) {
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), []byte(content), 0o644))
	}
	write("etc/passwd", "root:x:0:0::/:\n")
	write("empty-file", "")
	must(t, os.Mkdir(at("empty-folder"), 0o711))
	must(t, os.Mkdir(at("sticky"), 0o777))
	must(t, unix.Chmod(at("sticky"), 0o1777))
	write("bin/setuid", "elf")
	must(t, unix.Chmod(at("bin/setuid"), 0o6755))
	write("owned", "by others")
	must(t, os.Lchown(at("owned"), 3_000_000_000, 2_147_483))

	must(t, os.Symlink("/etc/shadow", at("to-shadow")))
	must(t, os.Symlink("../../../../../../../../etc", at("etc/up")))
	must(t, os.Symlink("loop", at("loop")))
	must(t, os.Symlink(strings.Repeat("target/", 60), at("long-target")))
	must(t, os.Symlink("\xff\xfe", at("raw-target")))
	must(t, os.Lchown(at("to-shadow"), 7, 8))

	write("links/a", strings.Repeat("linked ", 1000))
	must(t, os.Link(at("links/a"), at("a-before")))
	must(t, os.Link(at("links/a"), at("links/z")))
	must(t, os.Link(at("loop"), at("links/loop-again")))

	must(t, unix.Mkfifo(at("fifo"), 0o600))
	must(t, unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(at("block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))

	for _, name := range []string{
		"names/new\nline", "names/-rf", "names/ space ", "names/ünïcode-✓", "names/\xff\x80raw", "names/back\\slash",
		"names/" + strings.Repeat("n", 255), "names/" + strings.Repeat("\xfe", 255), "names/=equal", "names/*",
		strings.Repeat("deep/", 120) + "bottom",
	} {
		write(name, name)
	}
	makeAttributes(t, at)
	corpus.Sparse(t, at("sparse"))
	setTimes(t, root)
	return root
}

func makeAttributes(t testing.TB, at func(string) string) {
	t.Helper()
	for name, values := range map[string]map[string]string{
		"bin/setuid":   {"security.capability": corpus.Capability, "user.comment": "hello"},
		"etc/passwd":   {"user.binary": "\x00\xff\n=\x00", "user.a=b%c": "awkward name", "trusted.overlay.fake": "y"},
		"etc":          {"user.folder": "yes"},
		"empty-folder": {"trusted.x": strings.Repeat("v", 1000)},
		"fifo":         {"trusted.fifo": "kept"},
		"to-shadow":    {"trusted.link": "kept"},
	} {
		for key, value := range values {
			must(t, unix.Lsetxattr(at(name), key, []byte(value), 0))
		}
	}
}

// setTimes gives every object a time of its own, with nanoseconds, some before 1970.
func setTimes(t testing.TB, root string) {
	t.Helper()
	var paths []string
	must(t, filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	sort.Sort(sort.Reverse(sort.StringSlice(paths)))
	for i, path := range paths {
		at := time.Unix(1_600_000_000+int64(i), 123_456_789+int64(i)).UnixNano()
		if strings.HasSuffix(path, "passwd") {
			at = time.Date(1960, 1, 2, 3, 4, 5, 678_900_001, time.UTC).UnixNano()
		}
		times := []unix.Timespec{unix.NsecToTimespec(at), unix.NsecToTimespec(at)}
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, times, unix.AT_SYMLINK_NOFOLLOW))
	}
}
