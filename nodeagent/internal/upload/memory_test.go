package upload_test

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"ugallu.io/forensics/internal/custodytest/storetest"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// Variables that tell a child process of the test where to upload, and how much.
const (
	variableEndpoint = "UPLOAD_TEST_ENDPOINT"
	variableArchive  = "UPLOAD_TEST_ARCHIVE_MIB"
)

// maxPeak in MiB of a process that uploads four streams at the same time, and the limit that it gives its heap. The agent
// has 100 MiB for all that it does. Without a limit the collector lets the heap grow to twice the buffers.
const (
	maxPeak   = 78
	heapLimit = "60MiB"
)

func BenchmarkFourStreamsAtOnce(b *testing.B) {
	server := storetest.MinIO(b, b.TempDir())
	const mebibytes = 1024
	var peak int64
	for range b.N {
		peak = max(peak, child(b, server, mebibytes))
	}
	b.SetBytes(mebibytes * mebibyte)
	b.ReportMetric(float64(peak), "peak-MiB")
}

func TestFourStreamsAtOnceFitIntoTheAgentsMemory(t *testing.T) {
	server := storetest.MinIO(t, t.TempDir())
	if peak := child(t, server, 256); peak > maxPeak {
		t.Errorf("the peak is %d MiB, want at most %d", peak, maxPeak)
	}
}

// child uploads in a process of its own and returns its peak of resident memory in MiB. The process reports it itself:
// what the system says of a child's end counts the parent's memory that it was started from.
func child(t testing.TB, server *storetest.Server, mebibytes int) int64 {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestUploadsForTheParent$", "-test.v")
	command.Env = append(os.Environ(), variableEndpoint+"="+server.Endpoint, variableArchive+"="+strconv.Itoa(mebibytes),
		"GOMEMLIMIT="+heapLimit)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	found := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(output)
	if found == nil {
		t.Fatalf("the child does not say how much memory it used:\n%s", output)
	}
	peak, err := strconv.ParseInt(string(found[1]), 10, 64)
	must(t, err)
	return peak >> 10
}

// TestUploadsForTheParent is what child runs: an archive in frames, and beside it an index, a timeline and gaps in lines.
func TestUploadsForTheParent(t *testing.T) {
	endpoint := os.Getenv(variableEndpoint)
	if endpoint == "" {
		return // nobody's child
	}
	archive, err := strconv.Atoi(os.Getenv(variableArchive))
	must(t, err)
	store, err := worm.NewS3(worm.Config{
		Endpoint: endpoint, Bucket: storetest.Bucket, AccessKey: "contract-root", SecretKey: "contract-root-password",
	})
	must(t, err)
	uploads, ctx := errgroup.WithContext(t.Context())
	folder := options(0).Folder + "/" + strconv.Itoa(os.Getpid())
	for name, stream := range map[string]struct{ size, write int }{
		"archive":  {archive * mebibyte, bigFrame},
		"index":    {archive * mebibyte / 8, 64 << 10},
		"timeline": {archive * mebibyte / 8, 300},
		"gaps":     {mebibyte, 300},
	} {
		uploads.Go(func() error { return send(ctx, store, folder+"/"+name, stream.size, stream.write) })
	}
	must(t, uploads.Wait())
	status, err := os.ReadFile("/proc/self/status")
	must(t, err)
	t.Logf("%s", status)
}

func send(ctx context.Context, store worm.Putter, folder string, size, write int) error {
	o := options(128 * mebibyte)
	o.Folder = folder
	w := upload.NewWriter(ctx, store, o)
	source, buffer := rand.NewChaCha8([32]byte{1}), make([]byte, write)
	for sent := 0; sent < size; sent += write {
		_, _ = source.Read(buffer)
		if _, err := w.Write(buffer); err != nil {
			w.Abort(err)
			return err
		}
	}
	result, err := w.Finish()
	if err == nil && result.Size < int64(size) {
		err = io.ErrShortWrite
	}
	return err
}
