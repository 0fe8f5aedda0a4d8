package corpus

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Depth of the folder Deep: deeper than any path can name.
const (
	Depth = 4096
	Deep  = "d"
)

// Image fills the lower layer.
func Image(t testing.TB, lower string) {
	t.Helper()
	for _, name := range []string{
		"image/kept", "image/edited", "image/chmod-only", "image/attribute-only", "image/deleted", "emptied/inside",
		"renamed/inside", "hard/a", "mounted-file",
	} {
		WriteFile(t, filepath.Join(lower, name), "content of "+name)
	}
	must(t, os.Link(filepath.Join(lower, "hard/a"), filepath.Join(lower, "hard/b")))
}

// planter plants in a mounted overlay.
type planter struct {
	testing.TB
	merged string
}

func (p planter) at(name string) string { return filepath.Join(p.merged, name) }

func (p planter) write(name, content string) {
	p.Helper()
	WriteFile(p, p.at(name), content)
}

// Plant makes everything of the list of hostile input in an overlay that is mounted over Image. Some links in it lead to
// the canary, a file outside.
func Plant(t testing.TB, merged, canary string) *Changing {
	t.Helper()
	p := planter{t, merged}
	changing := &Changing{Root: merged}
	changing.plant(t, p.at)
	p.kinds()
	p.names()
	p.links(canary)
	p.content()
	p.attributes()
	p.layers()
	p.deep()
	return changing
}

func (p planter) kinds() {
	p.Helper()
	must(p, os.Mkdir(p.at("kinds"), 0o755))
	must(p, unix.Mkfifo(p.at("kinds/fifo"), 0o600))
	must(p, unix.Mknod(p.at("kinds/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(p, unix.Mknod(p.at("kinds/tty"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0)))) // opening it can hang
	must(p, unix.Mknod(p.at("kinds/disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))))
	listener, err := net.Listen("unix", p.at("kinds/socket"))
	must(p, err)
	p.Cleanup(func() { must(p, listener.Close()) })
}

func (p planter) names() {
	p.Helper()
	for _, name := range []string{
		strings.Repeat("\xfe", 255), "new\nline", "-rf", "--checkpoint-action=exec=sh", ".wh.looks-like-one", ".wh..wh..opq",
		"pipe|name", "100%41", "back\\slash", " ", "\x1b[31mred", "\u202egnp.exe", "\"quoted\"", "..hidden", "é", "e\u0301",
	} {
		p.write("names/"+name, name)
	}
}

func (p planter) links(canary string) {
	p.Helper()
	must(p, os.Mkdir(p.at("links"), 0o755))
	for name, target := range map[string]string{
		"shadow": "/etc/shadow", "root": "/proc/1/root", "self": "self", "a": "b", "b": "a", "up": "../../../../../../../..",
		"canary": canary, "canary-folder": filepath.Dir(canary), "relative": "../image/kept", "raw": "\xff\n",
		"magic": "/proc/self/fd/0",
	} {
		must(p, os.Symlink(target, p.at("links/"+name)))
	}
}

func (p planter) content() {
	p.Helper()
	must(p, os.Mkdir(p.at("content"), 0o755))
	Compressible(p, p.at("content/compressible"), 64<<20)
	Sparse(p, p.at("content/sparse"))
	file, err := os.Create(p.at("content/terabyte"))
	must(p, err)
	_, err = file.WriteAt([]byte("in the middle"), 1<<39)
	must(p, errors.Join(err, file.Truncate(1<<40), file.Close()))
	for i := range 3000 {
		p.write("many/"+strings.Repeat("f", i%200)+strconv.Itoa(i), "small")
	}
}

// Capability is what setcap cap_net_raw=ep writes, in the kernel's version 2 format; a user namespace adds its owner.
const Capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func (p planter) attributes() {
	p.Helper()
	p.write("attributes/setcap", "elf")
	must(p, unix.Setxattr(p.at("attributes/setcap"), "security.capability", []byte(Capability), 0))
	p.write("attributes/large", "")
	const largest = 64 << 10 // XATTR_SIZE_MAX
	for _, name := range []string{"trusted.a", "trusted.b", "trusted.c"} {
		must(p, unix.Setxattr(p.at("attributes/large"), name, bytes.Repeat([]byte(name[len(name)-1:]), largest), 0))
	}
	p.write("attributes/immutable", "for ever")
}

// Pin makes a file immutable, as chattr +i does, until the function that it returns is called.
func Pin(t testing.TB, path string) (unpin func()) {
	t.Helper()
	set := func(flags int) {
		t.Helper()
		file, err := os.Open(path)
		must(t, err)
		must(t, unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, flags))
		must(t, file.Close())
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL
	set(immutable)
	return func() { set(0) }
}

func (p planter) layers() {
	p.Helper()
	must(p, os.WriteFile(p.at("image/edited"), []byte("CONTENT of image/edited"), 0o644))
	Backdate(p, p.at("image/edited"))
	must(p, unix.Setxattr(p.at("image/attribute-only"), "user.a", []byte("new"), 0))
	must(p, unix.Chmod(p.at("image/chmod-only"), 0o4755))
	must(p, os.Remove(p.at("image/deleted")))
	must(p, os.RemoveAll(p.at("emptied")))
	p.write("emptied/new", "new")
	must(p, os.Rename(p.at("renamed"), p.at("moved")))
	p.write("hard/a", "another content")
	must(p, os.Link(p.at("hard/a"), p.at("hard/c")))
	p.write("mounted-folder/hidden", "hidden")
	p.write("mounted-file", "hidden")
}

func (p planter) deep() {
	p.Helper()
	folder, err := unix.Open(p.merged, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(p, err)
	for range Depth {
		must(p, unix.Mkdirat(folder, Deep, 0o755))
		below, err := unix.Openat(folder, Deep, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(p, errors.Join(err, unix.Close(folder)))
		folder = below
	}
	must(p, unix.Close(folder))
}

// MountOver hides a folder and a file of the tree behind a filesystem and a file from elsewhere, until the test ends.
func MountOver(t testing.TB, root, file string) {
	t.Helper()
	folder, name := filepath.Join(root, "mounted-folder"), filepath.Join(root, "mounted-file")
	must(t, unix.Mount("tmpfs", folder, "tmpfs", 0, "size=1m"))
	must(t, unix.Mount(file, name, "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		must(t, unix.Unmount(folder, unix.MNT_DETACH))
		must(t, unix.Unmount(name, unix.MNT_DETACH))
	})
}
