package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/archive"
)

// corpus is a container's root filesystem made by somebody who knows that it will be captured.
type corpus struct {
	*overlay
	// canary lies outside, and many names inside lead to it.
	canary string
	// changing are the files that change while they are read, in the order in which they are reached.
	changing []string
	next     int
}

const (
	changingSize = 4 << 20
	// corpusDepth of folders below one another.
	corpusDepth = 4096
)

// makeCorpus builds everything of the list of hostile input.
func makeCorpus(t testing.TB) *corpus {
	t.Helper()
	outside := t.TempDir()
	c := &corpus{canary: filepath.Join(outside, "canary")}
	writeFile(t, c.canary, "never opened")
	c.overlay = makeOverlay(t, ",metacopy=on,redirect_dir=on,index=off", func(lower string) {
		for _, name := range []string{
			"image/kept", "image/edited", "image/chmod-only", "image/attribute-only", "image/deleted", "emptied/inside",
			"renamed/inside", "hard/a", "mounted-file",
		} {
			writeFile(t, filepath.Join(lower, name), "content of "+name)
		}
		must(t, os.Link(filepath.Join(lower, "hard/a"), filepath.Join(lower, "hard/b")))
	})
	c.makeChanging(t)
	c.makeKinds(t)
	c.makeNames(t)
	c.makeLinks(t)
	c.makeContent(t)
	c.makeAttributes(t)
	c.makeLayers(t)
	c.makeDeep(t)
	return c
}

func (c *corpus) makeChanging(t testing.TB) {
	t.Helper()
	for _, name := range []string{"a-grows", "b-replaced", "c-shrinks", "d-truncated", "e-rewritten"} {
		c.changing = append(c.changing, "0-changing/"+name)
		writeFile(t, c.at("0-changing/"+name), strings.Repeat(name[:1], changingSize))
	}
}

// change is called with the progress, and changes each file in the middle of its being read.
func (c *corpus) change(t testing.TB, root string, read int64) {
	if c.next == len(c.changing) || read < int64(c.next)*changingSize+changingSize/2 {
		return
	}
	path := filepath.Join(root, c.changing[c.next])
	c.next++
	switch filepath.Base(path)[0] {
	case 'a':
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = file.Write(make([]byte, changingSize))
		must(t, errors.Join(err, file.Close()))
	case 'b':
		must(t, os.WriteFile(path+".new", []byte("another file"), 0o600))
		must(t, os.Rename(path+".new", path))
	case 'c':
		must(t, os.Truncate(path, changingSize-1))
	case 'd':
		must(t, os.Truncate(path, 0))
	case 'e':
		must(t, os.WriteFile(path, bytes.Repeat([]byte("E"), changingSize), 0o600))
	}
}

func (c *corpus) makeKinds(t testing.TB) {
	t.Helper()
	must(t, os.Mkdir(c.at("kinds"), 0o755))
	must(t, unix.Mkfifo(c.at("kinds/fifo"), 0o600))
	must(t, unix.Mknod(c.at("kinds/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, unix.Mknod(c.at("kinds/tty"), unix.S_IFCHR|0o666, int(unix.Mkdev(5, 0)))) // opening it can hang
	must(t, unix.Mknod(c.at("kinds/disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))))
	listener, err := net.Listen("unix", c.at("kinds/socket"))
	must(t, err)
	t.Cleanup(func() { must(t, listener.Close()) })
}

func (c *corpus) makeNames(t testing.TB) {
	t.Helper()
	for _, name := range []string{
		strings.Repeat("\xfe", 255), "new\nline", "-rf", "--checkpoint-action=exec=sh", ".wh.looks-like-one", ".wh..wh..opq",
		"pipe|name", "100%41", "back\\slash", " ", "\x1b[31mred", "\u202egnp.exe", "\"quoted\"", "..hidden", "é", "e\u0301",
	} {
		writeFile(t, c.at("names/"+name), name)
	}
}

func (c *corpus) makeLinks(t testing.TB) {
	t.Helper()
	must(t, os.Mkdir(c.at("links"), 0o755))
	for name, target := range map[string]string{
		"shadow": "/etc/shadow", "root": "/proc/1/root", "self": "self", "a": "b", "b": "a", "up": "../../../../../../../..",
		"canary": c.canary, "canary-folder": filepath.Dir(c.canary), "relative": "../image/kept", "raw": "\xff\n",
		"magic": "/proc/self/fd/0",
	} {
		must(t, os.Symlink(target, c.at("links/"+name)))
	}
}

func (c *corpus) makeContent(t testing.TB) {
	t.Helper()
	writeFile(t, c.at("content/compressible"), strings.Repeat("A", 64<<20))
	makeSparse(t, c.at("content/sparse"))
	file, err := os.Create(c.at("content/terabyte"))
	must(t, err)
	_, err = file.WriteAt([]byte("in the middle"), 1<<39)
	must(t, errors.Join(err, file.Truncate(1<<40), file.Close()))
	for i := range 3000 {
		writeFile(t, c.at("many/"+strings.Repeat("f", i%200)+string(rune('a'+i%26))+time.Duration(i).String()), "small")
	}
}

func (c *corpus) makeAttributes(t testing.TB) {
	t.Helper()
	writeFile(t, c.at("attributes/setcap"), "elf")
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	must(t, unix.Setxattr(c.at("attributes/setcap"), "security.capability", []byte(capability[:20]), 0))
	writeFile(t, c.at("attributes/large"), "")
	for _, name := range []string{"trusted.a", "trusted.b", "trusted.c"} {
		must(t, unix.Setxattr(c.at("attributes/large"), name, bytes.Repeat([]byte(name), 64<<10/len(name)), 0))
	}
	writeFile(t, c.at("attributes/immutable"), "for ever")
}

// pin makes a file of the upper layer immutable, as chattr +i does.
func (c *corpus) pin(t testing.TB, path string, on int) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	const immutable = 0x10 // FS_IMMUTABLE_FL
	must(t, unix.IoctlSetPointerInt(int(file.Fd()), unix.FS_IOC_SETFLAGS, on*immutable))
	must(t, file.Close())
}

func (c *corpus) makeLayers(t testing.TB) {
	t.Helper()
	must(t, os.WriteFile(c.at("image/edited"), []byte("CONTENT of image/edited"), 0o644))
	backdate(t, c.at("image/edited"))
	must(t, unix.Setxattr(c.at("image/attribute-only"), "user.a", []byte("new"), 0))
	must(t, unix.Chmod(c.at("image/chmod-only"), 0o4755))
	must(t, os.Remove(c.at("image/deleted")))
	must(t, os.RemoveAll(c.at("emptied")))
	writeFile(t, c.at("emptied/new"), "new")
	must(t, os.Rename(c.at("renamed"), c.at("moved")))
	writeFile(t, c.at("hard/a"), "another content")
	must(t, os.Link(c.at("hard/a"), c.at("hard/c")))
	writeFile(t, c.at("mounted-folder/hidden"), "hidden")
	writeFile(t, c.at("mounted-file"), "hidden")
}

// makeDeep makes folders below one another, deeper than any path can name.
func (c *corpus) makeDeep(t testing.TB) {
	t.Helper()
	folder, err := unix.Open(c.merged, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range corpusDepth {
		must(t, unix.Mkdirat(folder, "d", 0o755))
		below, err := unix.Openat(folder, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, errors.Join(err, unix.Close(folder)))
		folder = below
	}
	must(t, unix.Close(folder))
}

// mountOver hides a folder and a file of the tree.
func mountOver(t testing.TB, root string) {
	t.Helper()
	over := filepath.Join(t.TempDir(), "over")
	writeFile(t, over, "not of this tree")
	must(t, unix.Mount("tmpfs", filepath.Join(root, "mounted-folder"), "tmpfs", 0, "size=1m"))
	must(t, unix.Mount(over, filepath.Join(root, "mounted-file"), "", unix.MS_BIND, ""))
	t.Cleanup(func() {
		must(t, unix.Unmount(filepath.Join(root, "mounted-folder"), unix.MNT_DETACH))
		must(t, unix.Unmount(filepath.Join(root, "mounted-file"), unix.MNT_DETACH))
	})
}

// scan leaves out what no path can name, what is mounted over and what changes.
func (c *corpus) scan(t testing.TB, root string) map[string]record {
	t.Helper()
	found := scan(t, root, "d")
	maps.DeleteFunc(found, func(name string, _ record) bool { return name == "." || slices.Contains(c.changing, name) })
	for _, name := range []string{"0-changing", "mounted-folder", "mounted-folder/hidden", "mounted-file"} {
		delete(found, name)
	}
	return found
}

// fromTar describes an archive by Go's reader. Content of more than a GiB is left to GNU tar: the reader has no way to
// skip holes.
func fromTar(t testing.TB, data []byte) map[string]record {
	t.Helper()
	found, names := map[string]record{}, map[string][]string{}
	for reader := open(t, data); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		name := filepath.Clean(header.Name)
		if header.Typeflag == tar.TypeLink {
			names[header.Linkname] = append(names[header.Linkname], name)
			found[name] = found[header.Linkname]
			continue
		}
		r := record{
			Type: header.FileInfo().Mode().Type(), Mode: uint32(header.Mode), UID: uint32(header.Uid), GID: uint32(header.Gid),
			Modified: header.ModTime.UnixNano(), Link: header.Linkname, Attributes: map[string]string{},
		}
		if r.Type&fs.ModeDevice != 0 {
			r.Device = unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor))
		}
		for key, value := range header.PAXRecords {
			if attribute, is := strings.CutPrefix(key, "SCHILY.xattr."); is {
				r.Attributes[attribute] = value
			}
		}
		if header.Typeflag == tar.TypeReg {
			r.Size = header.Size
		}
		if r.Size > 0 && r.Size < 1<<30 {
			content, err := io.ReadAll(reader)
			must(t, err)
			r.SHA256 = evidence.Digest(content)
		}
		found[name] = r
	}
	for first, others := range names {
		all := append([]string{first}, others...)
		slices.Sort(all)
		for _, name := range all {
			r := found[name]
			r.Names = all
			found[name] = r
		}
	}
	return found
}

// check compares what was archived with the tree as it was, by GNU tar, by Go's reader and by the index.
func (c *corpus) check(t *testing.T, want map[string]record, got *captured) {
	t.Helper()
	entries := got.entries(t)
	for name := range want {
		if entries[name] == nil || (entries[name].Position == nil && want[name].Type != fs.ModeSocket) {
			t.Errorf("%q is not in the archive: %+v", name, entries[name])
		}
	}
	maps.DeleteFunc(want, func(_ string, r record) bool { return r.Type == fs.ModeSocket })
	if diff := cmp.Diff(want, c.scan(t, extractTo(t, makeTmpfs(t), got.data, "--zstd"))); diff != "" {
		t.Errorf("extracted by GNU tar (-want +got):\n%s", diff)
	}
	read := fromTar(t, got.data)
	for name, r := range want {
		g, entry := read[name], entries[name]
		if r.SHA256 != "" && g.SHA256 != "" && (entry.SHA256 != g.SHA256 || entry.Size != r.Size) {
			t.Errorf("%q: the index says %s, Go reads %s", name, entry.SHA256, g.SHA256)
		}
		r.SHA256, g.SHA256 = "", ""
		if diff := cmp.Diff(r, g); diff != "" {
			t.Errorf("%q read by Go (-want +got):\n%s", name, diff)
		}
	}
}

func reasons(gaps []archive.Gap) map[string][]string {
	found := map[string][]string{}
	for _, gap := range gaps {
		found[gap.Reason] = append(found[gap.Reason], gap.Path)
	}
	return found
}

// atimes are those of the canary and of its folder.
func (c *corpus) atimes(t testing.TB) [2]int64 {
	t.Helper()
	var file, folder unix.Stat_t
	must(t, unix.Stat(c.canary, &file))
	must(t, unix.Stat(filepath.Dir(c.canary), &folder))
	return [2]int64{file.Atim.Nano(), folder.Atim.Nano()}
}

func TestHostileCorpusRoundTripsOrIsNamed(t *testing.T) {
	for name, options := range map[string]archive.Options{"whole": {}, "upper": {UpperLayer: true}} {
		t.Run(name, func(t *testing.T) {
			c := makeCorpus(t)
			root := c.merged
			if options.UpperLayer {
				root, options.Lower = c.upper, c.lower
			} else {
				options.Upper = c.upper
			}
			backdate(t, filepath.Dir(c.canary)) // the next read would set its access time
			before, want := c.atimes(t), c.scan(t, root)
			mountOver(t, root)
			c.pin(t, filepath.Join(c.upper, "attributes/immutable"), 1)
			options.Progress = func(p archive.Progress) { c.change(t, root, p.BytesRead) }
			got := capture(t, root, options)
			c.pin(t, filepath.Join(c.upper, "attributes/immutable"), 0)
			if after := c.atimes(t); after != before {
				t.Errorf("something outside was opened: access times were %v, are %v", before, after)
			}
			deepest := strings.Repeat("d/", 2048) + "d"
			if diff := cmp.Diff(map[string][]string{
				archive.GapChangedWhileRead: c.changing,
				archive.GapSocket:           {"kinds/socket"},
				archive.GapTooDeep:          {deepest},
				archive.GapMountPoint:       {"mounted-file", "mounted-folder"},
			}, reasons(got.gaps)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			c.check(t, want, got)
			c.checkFlags(t, got.entries(t), options.UpperLayer)
		})
	}
}

func (c *corpus) checkFlags(t *testing.T, entries map[string]*evidence.Entry, upper bool) {
	t.Helper()
	want := map[string]evidence.Flag{
		"attributes/immutable": evidence.FlagImmutable, "content/terabyte": evidence.FlagHolesNotHashed,
		"content/sparse": evidence.FlagSparse, "names/.wh.looks-like-one": evidence.FlagWhiteoutName,
	}
	if upper {
		want["image/edited"] = evidence.FlagSameMetadataOtherContent
	}
	for _, name := range c.changing {
		want[name] = evidence.FlagChangedWhileRead
	}
	for name, flag := range want {
		if !slices.Contains(entries[name].Flags, flag) {
			t.Errorf("%s lacks the flag %s: %v", name, flag, entries[name].Flags)
		}
	}
	if upper {
		for name, is := range map[string]bool{
			"image/deleted": entries["image/deleted"].Overlay.Whiteout, "emptied": entries["emptied"].Overlay.Opaque,
			"moved": entries["moved"].Overlay.Redirect == "renamed", "image/chmod-only": entries["image/chmod-only"].Overlay.Metacopy,
		} {
			if !is {
				t.Errorf("%s: overlay %+v", name, entries[name].Overlay)
			}
		}
	}
}
