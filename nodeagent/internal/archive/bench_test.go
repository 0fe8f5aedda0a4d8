package archive_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
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
	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

const (
	benchFiles = 30_000
	benchBytes = 1500 << 20
)

// benchTree makes a root filesystem of at least benchFiles and benchBytes of programs and sources of this machine, which
// compress as those of an image do, and shows it as a read-only overlay, which is how the agent sees a container.
func benchTree(b *testing.B) string {
	b.Helper()
	requireRoot(b)
	output, err := exec.Command("go", "env", "GOROOT").Output()
	must(b, err)
	goroot := strings.TrimSpace(string(output))
	copies, empty, root := b.TempDir(), b.TempDir(), b.TempDir()
	files, size := 0, int64(0)
	for i := 0; files < benchFiles || size < benchBytes; i++ {
		if i == 20 {
			b.Fatalf("%d files and %d bytes after %d copies of this machine's programs", files, size, i)
		}
		for _, source := range []string{"/usr/bin", "/usr/lib/x86_64-linux-gnu", "/usr/share/perl", filepath.Join(goroot, "src"), filepath.Join(goroot, "pkg")} {
			if size > benchBytes && files < benchFiles && !strings.HasSuffix(source, "src") {
				continue // sources are small: they fill up the number of files
			}
			n, copied := copyFiles(b, source, filepath.Join(copies, strconv.Itoa(i), filepath.Base(source)))
			files, size = files+n, size+copied
		}
	}
	layers := "lowerdir=" + copies + ":" + empty // a read-only overlay has two layers at least
	must(b, unix.Mount("overlay", root, "overlay", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, layers))
	b.Cleanup(func() { must(b, unix.Unmount(root, unix.MNT_DETACH)) })
	b.Logf("%d files, %d MB", files, size/1e6)
	return root
}

// copyFiles copies a tree if it exists, and says how many files and bytes it has. Copies differ from each other in the
// order of their files alone.
func copyFiles(b *testing.B, source, target string) (files int, size int64) {
	b.Helper()
	if _, err := os.Stat(source); err != nil {
		return 0, 0
	}
	must(b, os.MkdirAll(filepath.Dir(target), 0o755))
	if output, err := exec.Command("cp", "-a", source, target).CombinedOutput(); err != nil {
		b.Fatalf("copy %s: %v\n%s", source, err, output)
	}
	must(b, filepath.WalkDir(target, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		files, size = files+1, size+info.Size()
		return err
	}))
	return files, size
}

// readAll is the floor: every file read once, on one core, and hashed when a hash is given.
func readAll(b *testing.B, root string, hashed bool) time.Duration {
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
		out := io.Discard
		if hashed {
			out = sha256.New()
		}
		// Hidden methods keep io.CopyBuffer to the buffer.
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{file}, buffer)
		if closed := file.Close(); err == nil {
			err = closed
		}
		return err
	}))
	return time.Since(began)
}

// other is what another program took for the same tree.
type other struct {
	time time.Duration
	cpu  time.Duration
	out  int64
}

// pipeline times GNU tar with a compressor, both reading and writing what we do.
func pipeline(b *testing.B, root, compressor string) other {
	b.Helper()
	began := time.Now()
	command := exec.Command("sh", "-c", "tar -C \"$1\" --xattrs -cf - . | "+compressor+" | wc -c", "sh", root)
	output, err := command.CombinedOutput()
	if err != nil {
		b.Fatalf("tar | %s: %v\n%s", compressor, err, output)
	}
	took := other{time: time.Since(began), cpu: command.ProcessState.UserTime() + command.ProcessState.SystemTime()}
	took.out, err = strconv.ParseInt(strings.TrimSpace(string(output)), 10, 64)
	must(b, err)
	return took
}

// cpu is the time that this process has computed for so far.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
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

// archiveOnce archives with everything that the agent wants: hashes, index, timeline.
func archiveOnce(b *testing.B, root string, options archive.Options) archive.Result {
	b.Helper()
	options.Index, options.Timeline = io.Discard, io.Discard
	result, err := archive.Write(b.Context(), io.Discard, root, options)
	must(b, err)
	return result
}

func BenchmarkArchive(b *testing.B) {
	root := benchTree(b)
	readAll(b, root, false) // fills the page cache for everyone
	read, hashed := readAll(b, root, false), readAll(b, root, true)
	zstd := pipeline(b, root, "zstd -1 -T2 -q")
	gzip := pipeline(b, root, "gzip")
	resetPeak(b)
	before := cpu(b)
	var result archive.Result
	for b.Loop() {
		result = archiveOnce(b, root, archive.Options{})
	}
	each := b.Elapsed() / time.Duration(b.N)
	reportSpeed(b, result)
	b.ReportMetric(float64(gzip.time)/float64(each), "x-tar-gzip")
	b.ReportMetric(float64(zstd.time)/float64(each), "x-tar-zstd1")
	b.ReportMetric(float64(read)/float64(each), "x-read")
	b.ReportMetric(float64(hashed)/float64(each), "x-read-sha256")
	b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N), "cpu-s")
	b.ReportMetric(peak(b), "peak-rss-MiB")
	b.Logf("read %v, read and sha256 %v, %d cores", read, hashed, runtime.GOMAXPROCS(0))
	for name, took := range map[string]other{"gzip": gzip, "zstd -1 -T2": zstd} {
		b.Logf("tar | %s: %v, cpu %v, ratio %.3f", name, took.time, took.cpu, float64(result.BytesRead)/float64(took.out))
	}
}

func reportSpeed(b *testing.B, result archive.Result) {
	b.Helper()
	b.SetBytes(result.BytesRead)
	b.ReportMetric(float64(result.BytesRead)/float64(result.BytesWritten), "ratio")
}

// BenchmarkArchiveFormats shows what the other choices cost on the same tree.
func BenchmarkArchiveFormats(b *testing.B) {
	root := benchTree(b)
	readAll(b, root, false)
	for _, options := range []archive.Options{{Format: archive.Zstd, Level: 1}, {Format: archive.Gzip, Level: 1}, {Format: archive.Zstd, Level: 3}} {
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
	root := b.TempDir()
	corpus.Many(b, root, 300)
	resetPeak(b)
	var result archive.Result
	for b.Loop() {
		result = archiveOnce(b, root, archive.Options{})
	}
	b.ReportMetric(float64(result.Entries)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
	b.ReportMetric(peak(b), "peak-rss-MiB")
}

// BenchmarkArchiveHeaders archives headers of up to 1 MiB: paths of control characters, which take six bytes each in the
// index, and the largest attributes there are.
func BenchmarkArchiveHeaders(b *testing.B) {
	const levels, attributes = 1000, 10
	root := makeTmpfs(b)
	folder, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(b, err)
	name, value := strings.Repeat("\x01", unix.NAME_MAX), bytes.Repeat([]byte{0xff}, 64<<10)
	for level := range levels {
		must(b, unix.Mkdirat(folder, name, 0o755))
		below, err := unix.Openat(folder, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(b, errors.Join(err, unix.Close(folder)))
		folder = below
		for i := range attributes * min(1, level/(levels-300)) {
			must(b, unix.Fsetxattr(folder, fmt.Sprintf("trusted.%d", i), value, 0))
		}
	}
	must(b, unix.Close(folder))
	for _, workers := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("workers-%d", workers), func(b *testing.B) {
			resetPeak(b)
			var result archive.Result
			for b.Loop() {
				result = archiveOnce(b, root, archive.Options{Workers: workers})
			}
			if result.Entries != levels+1 {
				b.Errorf("%d entries, gaps %+v", result.Entries, result.Gaps)
			}
			b.ReportMetric(peak(b), "peak-rss-MiB")
		})
	}
}

// BenchmarkArchiveCompressible archives one large file of nothing but one byte.
func BenchmarkArchiveCompressible(b *testing.B) {
	root := b.TempDir()
	corpus.Compressible(b, filepath.Join(root, "large"), 2<<30)
	resetPeak(b)
	var result archive.Result
	for b.Loop() {
		result = archiveOnce(b, root, archive.Options{})
	}
	reportSpeed(b, result)
	b.ReportMetric(peak(b), "peak-rss-MiB")
}
