package archive_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/archive"
)

// realisticTree shows programs and sources of this machine, about 600 MB, as one root filesystem: a read-only overlay
// of folders where they lie, which is how the agent sees a container.
func realisticTree(b *testing.B) string {
	b.Helper()
	requireRoot(b)
	output, err := exec.Command("go", "env", "GOROOT").Output()
	must(b, err)
	root := b.TempDir()
	layers := "lowerdir=/usr/bin:" + strings.TrimSpace(string(output))
	must(b, unix.Mount("overlay", root, "overlay", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, layers))
	b.Cleanup(func() { must(b, unix.Unmount(root, unix.MNT_DETACH)) })
	return root
}

// readAndHash is the floor: every file read and hashed once, on one core.
func readAndHash(b *testing.B, root string) time.Duration {
	b.Helper()
	began := time.Now()
	buffer := make([]byte, 256<<10)
	must(b, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		// Hidden methods keep io.CopyBuffer to the buffer.
		_, err = io.CopyBuffer(struct{ io.Writer }{sha256.New()}, struct{ io.Reader }{file}, buffer)
		if closed := file.Close(); err == nil {
			err = closed
		}
		return err
	}))
	return time.Since(began)
}

// pipeline times GNU tar with a compressor, both reading and writing what we do.
func pipeline(b *testing.B, root, compressor string) time.Duration {
	b.Helper()
	began := time.Now()
	command := exec.Command("sh", "-c", "tar -C \"$1\" --xattrs -cf - . | "+compressor+" | cat >/dev/null", "sh", root)
	if output, err := command.CombinedOutput(); err != nil {
		b.Fatalf("tar | %s: %v\n%s", compressor, err, output)
	}
	return time.Since(began)
}

// resetPeak makes the kernel forget the process's highest memory use so far; peak reads it, in MiB.
func resetPeak(b *testing.B) {
	b.Helper()
	debug.FreeOSMemory()
	const resetHighWater = "5"
	must(b, os.WriteFile("/proc/self/clear_refs", []byte(resetHighWater), 0))
}

func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	must(b, err)
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
			must(b, err)
			return float64(kib) / 1024
		}
	}
	b.Fatal("no VmHWM in /proc/self/status")
	return 0
}

func archiveOnce(b *testing.B, root string, options archive.Options) archive.Result {
	b.Helper()
	result, err := archive.Write(b.Context(), io.Discard, root, options)
	must(b, err)
	return result
}

func BenchmarkArchive(b *testing.B) {
	root := realisticTree(b)
	readAndHash(b, root) // fills the page cache for everyone
	hashed := readAndHash(b, root)
	gzip := pipeline(b, root, "gzip")
	zstd := pipeline(b, root, "zstd -1 -T1 -q")
	b.Logf("read and sha256 %v, tar | gzip %v, tar | zstd -1 %v, %d cores", hashed, gzip, zstd, runtime.GOMAXPROCS(0))
	resetPeak(b)
	var result archive.Result
	for b.Loop() {
		result = archiveOnce(b, root, archive.Options{})
	}
	each := b.Elapsed() / time.Duration(b.N)
	reportSpeed(b, result)
	b.ReportMetric(float64(gzip)/float64(each), "x-tar-gzip")
	b.ReportMetric(float64(zstd)/float64(each), "x-tar-zstd1")
	b.ReportMetric(float64(hashed)/float64(each), "x-read-sha256")
	b.ReportMetric(peak(b), "peak-rss-MiB")
}

func reportSpeed(b *testing.B, result archive.Result) {
	b.Helper()
	b.SetBytes(result.BytesRead)
	b.ReportMetric(float64(result.BytesRead)/float64(result.BytesWritten), "ratio")
}

// BenchmarkArchiveFormats shows what the other choices cost on the same tree.
func BenchmarkArchiveFormats(b *testing.B) {
	root := realisticTree(b)
	readAndHash(b, root)
	for _, options := range []archive.Options{{Format: archive.Gzip, Level: 1}, {Format: archive.Zstd, Level: 3}} {
		b.Run(fmt.Sprintf("%s-%d", options.Format, options.Level), func(b *testing.B) {
			var result archive.Result
			for b.Loop() {
				result = archiveOnce(b, root, options)
			}
			reportSpeed(b, result)
		})
	}
}

func BenchmarkArchive300k(b *testing.B) {
	const folders, each = 300, 1000
	root := b.TempDir()
	for i := range folders {
		folder := filepath.Join(root, strconv.Itoa(i))
		must(b, os.Mkdir(folder, 0o755))
		for j := range each {
			must(b, os.WriteFile(filepath.Join(folder, fmt.Sprintf("file-%04d.txt", j)), []byte(folder), 0o644))
		}
	}
	resetPeak(b)
	var result archive.Result
	for b.Loop() {
		result = archiveOnce(b, root, archive.Options{})
	}
	b.ReportMetric(float64(result.Entries)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	b.ReportMetric(peak(b), "peak-rss-MiB")
}
