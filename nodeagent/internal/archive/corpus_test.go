package archive_test

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

// hostile is a mounted corpus, and what lies outside of it.
type hostile struct {
	*overlay
	*corpus.Changing
	canary *canary
}

func makeHostile(t testing.TB) *hostile {
	t.Helper()
	h := &hostile{canary: makeCanary(t)}
	h.overlay = makeOverlay(t, ",metacopy=on,redirect_dir=on,index=off", func(lower string) { corpus.Image(t, lower) })
	h.Changing = corpus.Plant(t, h.merged, h.canary.path)
	return h
}

// scan leaves out what no path can name, what is mounted over and what changes.
func (h *hostile) scan(t testing.TB, root string) map[string]record {
	t.Helper()
	found := scan(t, root, corpus.Deep)
	maps.DeleteFunc(found, func(name string, _ record) bool { return !h.compared(name) })
	return found
}

// compared says whether an entry must be as it was before the capture began.
func (h *hostile) compared(name string) bool {
	left := []string{".", "0-changing", "mounted-folder", "mounted-folder/hidden", "mounted-file"}
	return !slices.Contains(append(left, h.Names()...), name) && !isDeep(name)
}

// deepest is the last of the folders below one another that a path can name.
const deepest = 2048

func isDeep(name string) bool { return strings.Trim(name, "/"+corpus.Deep) == "" }

// checkDeep demands the folders that a path can name, by the index, by Go's reader and by GNU tar.
func checkDeep(t *testing.T, entries map[string]*evidence.Entry, read map[string]record, extracted string) {
	t.Helper()
	path := ""
	for level := range deepest {
		path = filepath.Join(path, corpus.Deep)
		if entry := entries[path]; entry == nil || entry.Position == nil || !read[path].Type.IsDir() {
			t.Fatalf("folder %d levels down is missing: index %+v, archive %+v", level+1, entry, read[path])
		}
	}
	folder, err := unix.Open(extracted, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	level := 0
	for ; ; level++ {
		next, err := unix.Openat(folder, corpus.Deep, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, unix.Close(folder))
		if errors.Is(err, unix.ENOENT) {
			break
		}
		must(t, err)
		folder = next
	}
	if level != deepest {
		t.Errorf("GNU tar extracted %d levels, want %d", level, deepest)
	}
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
func (h *hostile) check(t *testing.T, want map[string]record, got *captured) {
	t.Helper()
	entries := got.entries(t)
	for name := range want {
		if entries[name] == nil || (entries[name].Position == nil && want[name].Type != fs.ModeSocket) {
			t.Errorf("%q is not in the archive: %+v", name, entries[name])
		}
	}
	maps.DeleteFunc(want, func(_ string, r record) bool { return r.Type == fs.ModeSocket })
	extracted := extractTo(t, makeTmpfs(t), got.data, "--zstd")
	if diff := cmp.Diff(want, h.scan(t, extracted)); diff != "" {
		t.Errorf("extracted by GNU tar (-want +got):\n%s", diff)
	}
	read := fromTar(t, got.data)
	checkDeep(t, entries, read, extracted)
	for name := range read {
		if _, is := want[name]; !is && h.compared(name) {
			t.Errorf("%q is in the archive and not in the tree", name)
		}
	}
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

func reasons(gaps []evidence.GapLine) map[string][]string {
	found := map[string][]string{}
	for _, gap := range gaps {
		found[gap.Reason] = append(found[gap.Reason], gap.Path)
	}
	return found
}

func TestHostileCorpusRoundTripsOrIsNamed(t *testing.T) {
	for name, options := range map[string]archive.Options{"whole": {}, "upper": {UpperLayer: true}} {
		t.Run(name, func(t *testing.T) {
			h := makeHostile(t)
			h.Root = h.merged
			if options.UpperLayer {
				h.Root, options.Lower = h.upper, h.lower
			} else {
				options.Upper = h.upper
			}
			want := h.scan(t, h.Root)
			over := filepath.Join(filepath.Dir(h.canary.path), "over")
			corpus.WriteFile(t, over, "not of this tree")
			corpus.MountOver(t, h.Root, over)
			unpin := corpus.Pin(t, filepath.Join(h.upper, "attributes/immutable"))
			options.Progress = func(p archive.Progress) { h.Change(t, p.BytesRead) }
			h.canary.arm(t, filepath.Join(h.Root, "kinds"))
			got := capture(t, h.Root, options)
			h.canary.demandUntouched(t)
			unpin()
			if diff := cmp.Diff(map[string][]string{
				archive.GapChangedWhileRead:   append(h.Names(), filepath.Dir(h.Names()[0])),
				evidence.GapSocketNotArchived: {"kinds/socket"},
				archive.GapTooDeep:            {strings.Repeat(corpus.Deep+"/", deepest) + corpus.Deep},
				archive.GapMountPoint:         {"mounted-file", "mounted-folder"},
			}, reasons(got.gaps)); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			h.check(t, want, got)
			h.checkFlags(t, got.entries(t), options.UpperLayer)
			got.demandReadable(t, archive.Zstd)
		})
	}
}

func (h *hostile) checkFlags(t *testing.T, entries map[string]*evidence.Entry, upper bool) {
	t.Helper()
	want := map[string]evidence.Flag{
		"attributes/immutable": evidence.FlagImmutable, "content/terabyte": evidence.FlagHolesNotHashed,
		"content/sparse": evidence.FlagSparse, "names/.wh.looks-like-one": evidence.FlagWhiteoutName,
	}
	if upper {
		want["image/edited"] = evidence.FlagSameMetadataOtherContent
	}
	for _, name := range h.Names() {
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
