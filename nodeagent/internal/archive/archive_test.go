package archive_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/archive"
)

func write(t testing.TB, root string, options archive.Options) ([]byte, archive.Result) {
	t.Helper()
	var out bytes.Buffer
	result, err := archive.Write(t.Context(), &out, root, options)
	must(t, err)
	return out.Bytes(), result
}

// extract lets GNU tar, which shares no code with us, unpack an archive.
func extract(t testing.TB, data []byte, compression string) string {
	t.Helper()
	return extractTo(t, t.TempDir(), data, compression)
}

func extractTo(t testing.TB, target string, data []byte, compression string) string {
	t.Helper()
	command := exec.Command("tar", "--extract", compression, "--file=-", "--directory="+target, "--numeric-owner",
		"--same-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*", "--delay-directory-restore")
	command.Stdin = bytes.NewReader(data)
	command.Env = append(os.Environ(), "LC_ALL=C")
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("tar: %v\n%s", err, output[:min(len(output), 2000)])
	}
	return target
}

func TestWriteRoundTripsThroughGNUTar(t *testing.T) {
	for compression, format := range map[string]archive.Format{"--zstd": archive.Zstd, "--gzip": archive.Gzip} {
		t.Run(string(format), func(t *testing.T) {
			root := makeTree(t)
			want := scan(t, root)
			data, result := write(t, root, archive.Options{Format: format})
			if diff := cmp.Diff([]evidence.Gap{}, result.Gaps); diff != "" {
				t.Errorf("gaps (-want +got):\n%s", diff)
			}
			if got := int64(len(want)); result.Entries != got {
				t.Errorf("%d entries, the tree has %d", result.Entries, got)
			}
			if result.SHA256 != evidence.Digest(data) || result.BytesWritten != int64(len(data)) {
				t.Error("digest or size is not that of the stream")
			}
			if diff := cmp.Diff(want, scan(t, extract(t, data, compression))); diff != "" {
				t.Errorf("extracted tree (-want +got):\n%s", diff)
			}
		})
	}
}

// open decompresses an archive.
func open(t testing.TB, data []byte) *tar.Reader {
	t.Helper()
	reader, err := zstd.NewReader(bytes.NewReader(data))
	must(t, err)
	t.Cleanup(reader.Close)
	return tar.NewReader(reader)
}

func TestWriteKeepsBirthAccessAndChangeTimes(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "file")
	must(t, os.WriteFile(path, []byte("x"), 0o600))
	var want unix.Statx_t
	must(t, unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &want))
	data, _ := write(t, root, archive.Options{})
	reader := open(t, data)
	for {
		header, err := reader.Next()
		must(t, err)
		if header.Name != "file" {
			continue
		}
		if got := header.AccessTime.UnixNano(); got != unixNano(want.Atime) {
			t.Errorf("access time %d, want %d", got, unixNano(want.Atime))
		}
		if got := header.ChangeTime.UnixNano(); got != unixNano(want.Ctime) {
			t.Errorf("change time %d, want %d", got, unixNano(want.Ctime))
		}
		born := fmt.Sprintf("%d.%09d", want.Btime.Sec, want.Btime.Nsec)
		if got := header.PAXRecords["LIBARCHIVE.creationtime"]; got != born {
			t.Errorf("birth %s, want %s", got, born)
		}
		break
	}
	var after unix.Stat_t
	must(t, unix.Stat(path, &after))
	if after.Atim.Nano() != unixNano(want.Atime) {
		t.Error("reading changed the access time")
	}
}

func unixNano(at unix.StatxTimestamp) int64 { return at.Sec*1e9 + int64(at.Nsec) }

func TestWriteIsDeterministic(t *testing.T) {
	root := makeTree(t)
	// As a View is: reading a link on a writable mount changes its access time.
	must(t, unix.Mount(root, root, "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(root, 0)) }()
	must(t, unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, first := write(t, root, archive.Options{})
	data, second := write(t, root, archive.Options{})
	if first.MerkleRoot != second.MerkleRoot || first.SHA256 != second.SHA256 {
		t.Errorf("two runs differ: %+v, %+v", first, second)
	}
	var names []string
	for reader := open(t, data); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		names = append(names, header.Name)
	}
	if names[0] != "./" {
		t.Errorf("first entry is %q, want the root", names[0])
	}
}

// lines parses a gaps stream.
func lines(t testing.TB, data []byte) []evidence.GapLine {
	t.Helper()
	var gaps []evidence.GapLine
	for decoder := json.NewDecoder(bytes.NewReader(data)); ; {
		var gap evidence.GapLine
		err := decoder.Decode(&gap)
		if errors.Is(err, io.EOF) {
			return gaps
		}
		must(t, err)
		gaps = append(gaps, gap)
	}
}

func TestWriteNamesWhatItCannotArchive(t *testing.T) {
	requireRoot(t)
	root := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(root, "sock\xff"))
	must(t, err)
	defer func() { must(t, listener.Close()) }()
	must(t, os.Mkdir(filepath.Join(root, "mounted"), 0o755))
	must(t, unix.Mount("tmpfs", filepath.Join(root, "mounted"), "tmpfs", 0, "size=1m"))
	defer func() { must(t, unix.Unmount(filepath.Join(root, "mounted"), 0)) }()
	must(t, os.WriteFile(filepath.Join(root, "mounted", "hidden"), nil, 0o600))

	var stream bytes.Buffer
	_, result := write(t, root, archive.Options{Gaps: &stream, Artifact: "web/rootfs.tar.zst"})
	counts := map[string]int64{}
	for _, gap := range result.Gaps {
		counts[gap.Reason] = gap.Count
	}
	if diff := cmp.Diff(map[string]int64{evidence.GapSocketNotArchived: 1, archive.GapMountPoint: 1}, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	gaps := lines(t, stream.Bytes())
	if len(gaps) != 2 || gaps[0].Path != "mounted" || string(gaps[1].PathBytes) != "sock\xff" {
		t.Errorf("gaps stream: %+v", gaps)
	}
	if gaps[1].Entry == nil || gaps[1].Entry.Type != evidence.EntrySocket || gaps[0].Artifact != "web/rootfs.tar.zst" {
		t.Errorf("gaps stream lacks the socket's entry or the artifact: %+v", gaps)
	}
	if gaps[0].Entry == nil || gaps[0].Entry.Type != evidence.EntryDirectory {
		t.Errorf("gaps stream lacks the mount's entry: %+v", gaps[0])
	}
	if result.Entries != 1 {
		t.Errorf("%d entries, want the root", result.Entries)
	}
}

// silentFUSE mounts a filesystem on a folder or file whose server never answers.
func silentFUSE(t *testing.T, at string, mode int) {
	t.Helper()
	requireRoot(t)
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	testneeds.That(t, err == nil, "no /dev/fuse")
	// Who waits for it all the same is let go with the server.
	t.Cleanup(func() { must(t, errors.Join(unix.Unmount(at, unix.MNT_DETACH), unix.Close(server))) })
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0,allow_other", server, mode)
	must(t, unix.Mount("silent", at, "fuse", 0, options))
}

func TestWriteAsksNoServerOfAMountBelow(t *testing.T) {
	root := t.TempDir()
	must(t, os.Mkdir(filepath.Join(root, "folder"), 0o755))
	for _, name := range []string{"file", "after"} {
		must(t, os.WriteFile(filepath.Join(root, name), nil, 0o600))
	}
	silentFUSE(t, filepath.Join(root, "folder"), unix.S_IFDIR|0o755)
	silentFUSE(t, filepath.Join(root, "file"), unix.S_IFREG|0o644)
	var stream bytes.Buffer
	data, result := write(t, root, archive.Options{Gaps: &stream})
	if diff := cmp.Diff(map[string][]string{archive.GapMountPoint: {"file", "folder"}}, reasons(lines(t, stream.Bytes()))); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	if read := fromTar(t, data); len(read) != 2 || result.Entries != 2 {
		t.Errorf("entries %+v, want the root and the last file", read)
	}
}

func TestWriteNeverAbortsOnAFileThatChanges(t *testing.T) {
	tests := map[string]struct {
		change func(file *os.File) error
	}{
		"shrinks":    {func(file *os.File) error { return file.Truncate(1 << 20) }},
		"grows":      {func(file *os.File) error { return file.Truncate(64 << 20) }},
		"rewritten":  {func(file *os.File) error { _, err := file.WriteAt([]byte("new"), 0); return err }},
		"disappears": {func(file *os.File) error { return os.Remove(file.Name()) }},
		"to nothing": {func(file *os.File) error { return file.Truncate(0) }},
		"only chmod": {func(file *os.File) error { return file.Chmod(0o777) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			const size = 8 << 20
			root := t.TempDir()
			file, err := os.Create(filepath.Join(root, "a"))
			must(t, err)
			defer func() { must(t, file.Close()) }()
			_, err = file.Write(bytes.Repeat([]byte("0123456789abcdef"), size/16))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(root, "b"), []byte("after"), 0o600))
			changed := false
			data, result := write(t, root, archive.Options{Progress: func(p archive.Progress) {
				if !changed && p.BytesRead > size/2 {
					changed = true
					must(t, test.change(file))
				}
			}})
			if len(result.Gaps) != 1 || result.Gaps[0].Reason != archive.GapChangedWhileRead {
				t.Errorf("gaps: %+v", result.Gaps)
			}
			sizes := map[string]int64{}
			for reader := open(t, data); ; {
				header, err := reader.Next()
				if errors.Is(err, io.EOF) {
					break
				}
				must(t, err)
				n, err := io.Copy(io.Discard, reader)
				must(t, err)
				sizes[header.Name] = n
			}
			if diff := cmp.Diff(map[string]int64{"./": 0, "a": size, "b": 5}, sizes); diff != "" {
				t.Errorf("archived sizes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWriteNamesAFolderThatChangesAndArchivesWhatCame(t *testing.T) {
	root := t.TempDir()
	at := func(name string) string { return filepath.Join(root, name) }
	must(t, os.MkdirAll(at("app/deep"), 0o755))
	must(t, os.WriteFile(at("app/deep/quiet"), []byte("stays"), 0o600))
	must(t, os.WriteFile(at("app/0-first"), bytes.Repeat([]byte("f"), 1<<20), 0o600))
	must(t, os.WriteFile(at("app/1.log"), []byte("before the rotation"), 0o600))
	rotated := false
	var stream bytes.Buffer
	data, result := write(t, root, archive.Options{Gaps: &stream, Progress: func(p archive.Progress) {
		if rotated || p.BytesRead == 0 {
			return
		}
		rotated = true
		must(t, os.Rename(at("app/1.log"), at("app/1.log.20261129")))
		must(t, os.WriteFile(at("app/1.log"), []byte("after"), 0o600))
	}})
	if diff := cmp.Diff(map[string][]string{archive.GapChangedWhileRead: {"app"}}, reasons(lines(t, stream.Bytes()))); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	got := map[string]int64{}
	for reader := open(t, data); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if _, twice := got[header.Name]; twice {
			t.Errorf("%s is in the archive twice", header.Name)
		}
		got[header.Name] = header.Size
	}
	if diff := cmp.Diff(map[string]int64{
		"./": 0, "app/": 0, "app/0-first": 1 << 20, "app/1.log": 5, "app/1.log.20261129": 19, "app/deep/": 0, "app/deep/quiet": 5,
	}, got); diff != "" {
		t.Errorf("archived sizes (-want +got):\n%s", diff)
	}
	if result.Truncated {
		t.Error("the archive is said to be truncated")
	}
}

func TestWriteNamesAFolderThatLosesANameWhileItIsRead(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "first"), bytes.Repeat([]byte("f"), 1<<20), 0o600))
	must(t, os.WriteFile(filepath.Join(root, "gone"), nil, 0o600))
	var stream bytes.Buffer
	_, result := write(t, root, archive.Options{Gaps: &stream, Progress: func(p archive.Progress) {
		if p.BytesRead > 0 {
			_ = os.Remove(filepath.Join(root, "gone"))
		}
	}})
	want := map[string][]string{archive.GapUnreadable: {"gone"}, archive.GapChangedWhileRead: {"."}}
	if diff := cmp.Diff(want, reasons(lines(t, stream.Bytes()))); diff != "" || result.Entries != 2 {
		t.Errorf("%d entries, gaps (-want +got):\n%s", result.Entries, diff)
	}
}

func TestWriteStopsAtLimitsAndSaysSo(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a-large"), make([]byte, 5000), 0o600))
	for i := range 5 {
		must(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("b-%d", i)), make([]byte, 100), 0o600))
	}
	tests := map[string]struct {
		options archive.Options
		reason  string
		entries int64
	}{
		"entries":  {archive.Options{MaxEntries: 3}, archive.GapMaxEntries, 3},
		"bytes":    {archive.Options{MaxBytes: 1000}, archive.GapMaxBytes, 6},
		"duration": {archive.Options{MaxDuration: time.Nanosecond}, archive.GapMaxDuration, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			data, result := write(t, root, test.options)
			if !result.Truncated || len(result.Gaps) != 1 || result.Gaps[0].Reason != test.reason {
				t.Errorf("truncated %t, gaps %+v", result.Truncated, result.Gaps)
			}
			if result.Entries != test.entries {
				t.Errorf("%d entries, want %d", result.Entries, test.entries)
			}
			extract(t, data, "--zstd")
		})
	}
}

func TestWriteReturnsTheErrorOfItsWriter(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), []byte(strings.Repeat("0123456789", 5<<20)), 0o600))
	want := errors.New("store is gone")
	reader, out := io.Pipe()
	must(t, reader.CloseWithError(want))
	if _, err := archive.Write(t.Context(), out, root, archive.Options{}); !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func TestWriteEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Write(ctx, io.Discard, t.TempDir(), archive.Options{}); err != nil {
		t.Errorf("an empty tree has nothing to cancel: %v", err)
	}
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), nil, 0o600))
	if _, err := archive.Write(ctx, io.Discard, root, archive.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want canceled", err)
	}
}

func TestWriteRefusesALevelOutOfRange(t *testing.T) {
	for _, options := range []archive.Options{{Level: -1}, {Level: 23}, {Format: archive.Gzip, Level: 10}, {Format: "lzma"}} {
		if _, err := archive.Write(t.Context(), io.Discard, t.TempDir(), options); err == nil {
			t.Errorf("%+v was accepted", options)
		}
	}
}

func TestGzipIsOneStreamToStandardReaders(t *testing.T) {
	root := t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "a"), bytes.Repeat([]byte("x"), 10<<20), 0o600))
	data, result := write(t, root, archive.Options{Format: archive.Gzip})
	reader, err := gzip.NewReader(bytes.NewReader(data))
	must(t, err)
	n, err := io.Copy(io.Discard, reader)
	must(t, err)
	if n != result.BytesTar {
		t.Errorf("%d bytes, want %d", n, result.BytesTar)
	}
}
