package archive_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ociarchive "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/archive"
	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

// overlay is a mounted overlay on a tmpfs, which takes attributes of any size.
type overlay struct{ lower, upper, merged string }

func (o *overlay) at(name string) string { return filepath.Join(o.merged, name) }

// makeOverlay mounts an overlay over what fill puts into its lower layer.
func makeOverlay(t testing.TB, options string, fill func(lower string)) *overlay {
	t.Helper()
	root := makeTmpfs(t)
	o := &overlay{filepath.Join(root, "lower"), filepath.Join(root, "upper"), filepath.Join(root, "merged")}
	for _, folder := range []string{o.lower, o.upper, o.merged, filepath.Join(root, "work")} {
		must(t, os.Mkdir(folder, 0o755))
	}
	fill(o.lower)
	layers := "lowerdir=" + o.lower + ",upperdir=" + o.upper + ",workdir=" + filepath.Join(root, "work") + options
	must(t, unix.Mount("overlay", o.merged, "overlay", 0, layers))
	t.Cleanup(func() { must(t, unix.Unmount(o.merged, unix.MNT_DETACH)) })
	return o
}

func makeTmpfs(t testing.TB) string {
	t.Helper()
	requireRoot(t)
	root := t.TempDir()
	must(t, unix.Mount("tmpfs", root, "tmpfs", 0, "size=1g,mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) })
	return root
}

// changed is an overlay with every change that a container can make to its image.
func changed(t testing.TB, options string) *overlay {
	t.Helper()
	o := makeOverlay(t, options, func(lower string) {
		for _, name := range []string{
			"kept", "edited", "same-size-same-mtime", "attribute-only", "chmod-only", "deleted", "replaced",
			"folder/inside", "folder/other", "emptied/inside", "renamed/inside", "deep/down/deleted", "deep/down/kept", "links/a",
		} {
			corpus.WriteFile(t, filepath.Join(lower, name), "content of "+name)
		}
		must(t, os.Link(filepath.Join(lower, "links/a"), filepath.Join(lower, "links/b")))
	})
	must(t, os.WriteFile(o.at("edited"), []byte("something else"), 0o644))
	must(t, os.WriteFile(o.at("same-size-same-mtime"), []byte("CONTENT of same-size-same-mtime"), 0o644))
	corpus.Backdate(t, o.at("same-size-same-mtime"))
	must(t, unix.Setxattr(o.at("attribute-only"), "user.a", []byte("new"), 0))
	must(t, unix.Chmod(o.at("chmod-only"), 0o4755))
	must(t, os.Remove(o.at("deleted")))
	must(t, os.Remove(o.at("deep/down/deleted")))
	must(t, os.RemoveAll(o.at("emptied")))
	corpus.WriteFile(t, o.at("emptied/new"), "new")
	must(t, os.Remove(o.at("replaced")))
	must(t, os.Symlink("kept", o.at("replaced")))
	corpus.WriteFile(t, o.at("new/.wh.looks-like-one"), "a file")
	corpus.WriteFile(t, o.at("links/a"), "content of links/A") // the other name stays in the lower layer
	must(t, unix.Mkfifo(o.at("new/fifo"), 0o600))
	return o
}

func TestIndexOfTheWholeSaysFromWhichLayer(t *testing.T) {
	o := changed(t, ",metacopy=off,redirect_dir=off")
	entries := capture(t, o.merged, archive.Options{Upper: o.upper}).entries(t)
	got := map[string]string{}
	for path, entry := range entries {
		got[path] = string(entry.Layer)
		if entry.Overlay != nil && entry.Overlay.CopiedUp {
			got[path] += ", copied up"
		}
	}
	want := map[string]string{
		".": "upper", "kept": "lower", "edited": "upper, copied up", "same-size-same-mtime": "upper, copied up",
		"attribute-only": "upper, copied up", "chmod-only": "upper, copied up", "replaced": "upper",
		"folder": "lower", "folder/inside": "lower", "folder/other": "lower", "emptied": "upper", "emptied/new": "upper",
		"renamed": "lower", "renamed/inside": "lower", "deep": "upper", "deep/down": "upper", "deep/down/kept": "lower",
		"new": "upper", "new/.wh.looks-like-one": "upper", "new/fifo": "upper",
		"links": "upper", "links/a": got["links/a"], "links/b": "lower",
	}
	if diff := cmp.Diff(want, got); diff != "" || !strings.HasPrefix(got["links/a"], "upper") {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
	for path, entry := range capture(t, o.merged, archive.Options{}).entries(t) {
		if entry.Layer != "" {
			t.Errorf("%s: layer %q, and nobody could know", path, entry.Layer)
		}
	}
	for _, flag := range entries["kept"].Flags {
		t.Errorf("a file of the image has flag %s", flag)
	}
}

func TestLayersThatCannotBeReadAreGapsAndNoGuess(t *testing.T) {
	o := changed(t, "")
	c := capture(t, o.merged, archive.Options{Upper: o.upper + "-gone", Lower: o.lower + "-gone"})
	if len(c.result.Gaps) != 1 || c.result.Gaps[0].Reason != archive.GapLayer || c.result.Gaps[0].Count != 2 {
		t.Errorf("gaps %+v", c.result.Gaps)
	}
	for line := range bytes.Lines(c.index) {
		if bytes.Contains(line, []byte(`"layer"`)) && !bytes.Contains(line, []byte(`"path":"."`)) {
			t.Errorf("line %s", line)
		}
	}
}

func TestEditThatMetadataHideIsFlagged(t *testing.T) {
	o := changed(t, ",metacopy=off")
	for name, root := range map[string]string{"upper": o.upper, "whole": o.merged} {
		options := archive.Options{Lower: o.lower, UpperLayer: name == "upper"}
		if name == "whole" {
			options.Upper = o.upper
		}
		got := map[string]evidence.Flag{}
		for path, entry := range capture(t, root, options).entries(t) {
			for _, flag := range entry.Flags {
				if flag == evidence.FlagSameAsLower || flag == evidence.FlagSameMetadataOtherContent {
					got[path] = flag
				}
			}
		}
		want := map[string]evidence.Flag{
			"same-size-same-mtime": evidence.FlagSameMetadataOtherContent, "links/a": evidence.FlagSameMetadataOtherContent,
			"attribute-only": evidence.FlagSameAsLower,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: flags (-want +got):\n%s", name, diff)
		}
	}
}

func TestUpperLayerIsArchivedRawAndExplained(t *testing.T) {
	o := changed(t, ",metacopy=on,redirect_dir=on")
	must(t, os.Rename(o.at("renamed"), o.at("new/moved")))
	c := capture(t, o.upper, archive.Options{UpperLayer: true, Lower: o.lower})
	entries := c.entries(t)
	got := map[string]evidence.Overlay{}
	for path, entry := range entries {
		if v := entry.Overlay; v != nil && (v.Whiteout || v.Opaque || v.Metacopy || v.Redirect != "") {
			got[path] = *v
		}
	}
	want := map[string]evidence.Overlay{
		"deleted": {Whiteout: true}, "deep/down/deleted": {Whiteout: true}, "renamed": {Whiteout: true},
		"emptied": {Opaque: true}, "new": {Opaque: true}, "new/moved": {Redirect: "/renamed"},
		"chmod-only": {Metacopy: true}, "attribute-only": {Metacopy: true},
	}
	if _, opaque := got["new"]; !opaque { // a new folder need not hide anything
		delete(want, "new")
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(evidence.Overlay{}, "CopiedUp")); diff != "" {
		t.Errorf("overlay (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(scan(t, o.upper), scan(t, extract(t, c.data, "--zstd"))); diff != "" {
		t.Errorf("the archive is not the upper folder as it lies there (-want +got):\n%s", diff)
	}
	looks := entries["new/.wh.looks-like-one"]
	if _, is := looks.OCIWhiteout(); is || !slices.Contains(looks.Flags, evidence.FlagWhiteoutName) {
		t.Errorf("a file that looks like a whiteout: %+v", looks)
	}
}

func TestWhiteoutsByAttributeCountOnlyWhereOverlayfsLooks(t *testing.T) {
	root := makeTmpfs(t)
	for _, name := range []string{"x/deleted", "x/has-content", "plain/file", "forged/file"} {
		must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755))
		must(t, os.WriteFile(filepath.Join(root, name), nil, 0o600))
		must(t, unix.Setxattr(filepath.Join(root, name), "trusted.overlay.whiteout", nil, 0))
		must(t, unix.Setxattr(filepath.Join(root, name), "user.overlay.whiteout", nil, 0))
	}
	must(t, os.WriteFile(filepath.Join(root, "x/has-content"), []byte("x"), 0o600))
	must(t, unix.Setxattr(filepath.Join(root, "x"), "trusted.overlay.opaque", []byte("x"), 0))
	must(t, unix.Setxattr(filepath.Join(root, "forged"), "user.overlay.opaque", []byte("x"), 0))
	for want, options := range map[string]archive.Options{
		"x/deleted":   {UpperLayer: true},
		"forged/file": {UpperLayer: true, UserXAttrs: true},
		"":            {},
	} {
		got := ""
		for path, entry := range capture(t, root, options).entries(t) {
			if entry.Overlay != nil {
				got += path
			}
		}
		if got != want {
			t.Errorf("whiteouts %q, want %q", got, want)
		}
	}
}

// layerOf makes the layer of an image of an archived upper folder, by what the index says.
func layerOf(t testing.TB, c *captured) []byte {
	t.Helper()
	entries := c.entries(t)
	var out bytes.Buffer
	writer, reader := tar.NewWriter(&out), open(t, c.data)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			must(t, writer.Close())
			return out.Bytes()
		}
		must(t, err)
		entry := entries[filepath.Clean(header.Name)]
		name, is := entry.OCIWhiteout()
		if entry.Overlay == nil || !entry.Overlay.Whiteout {
			header.Format = tar.FormatPAX
			must(t, writer.WriteHeader(header))
			_, err = io.Copy(writer, reader)
			must(t, err)
		}
		if is {
			must(t, writer.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg}))
		}
	}
}

func TestContainerdAppliesTheDerivedWhiteoutsAsOverlayfsDoes(t *testing.T) {
	o := changed(t, ",metacopy=off,redirect_dir=off")
	// OCI has no way to say that a name is no whiteout.
	must(t, os.Remove(o.at("new/.wh.looks-like-one")))
	layer := layerOf(t, capture(t, o.upper, archive.Options{UpperLayer: true}))
	image := makeTmpfs(t)
	var base bytes.Buffer
	_, err := archive.Write(t.Context(), &base, o.lower, archive.Options{})
	must(t, err)
	_, err = ociarchive.Apply(t.Context(), image, decompress(t, archive.Zstd, base.Bytes()))
	must(t, err)
	_, err = ociarchive.Apply(t.Context(), image, bytes.NewReader(layer))
	must(t, err)
	want, got := scan(t, o.merged), scan(t, image)
	for _, records := range []map[string]record{want, got} {
		for name, r := range records {
			r.Names = nil
			if r.Type.IsDir() {
				r.Modified = 0 // a whiteout is applied by changing its folder
			}
			records[name] = r
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tree (-overlayfs +containerd):\n%s", diff)
	}
}
