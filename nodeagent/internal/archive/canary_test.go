package archive_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"ugallu.io/forensics/nodeagent/internal/archive/testdata/corpus"
)

// canary is a file outside of the tree that is archived. Its filesystem notes every access in the access times, and the
// kernel reports also those that ask for no access time.
type canary struct {
	path    string
	before  [2]int64
	reports int
	folders map[int]string
}

func makeCanary(t testing.TB) *canary {
	t.Helper()
	requireRoot(t)
	outside := t.TempDir()
	must(t, unix.Mount("tmpfs", outside, "tmpfs", unix.MS_STRICTATIME, "size=1m,mode=755"))
	t.Cleanup(func() { must(t, unix.Unmount(outside, unix.MNT_DETACH)) })
	c := &canary{path: filepath.Join(outside, "canary"), folders: map[int]string{}}
	corpus.WriteFile(t, c.path, "never opened")
	corpus.Backdate(t, outside)
	return c
}

// times are the access times of the canary and of its folder.
func (c *canary) times(t testing.TB) [2]int64 {
	t.Helper()
	var file, folder unix.Stat_t
	must(t, unix.Stat(c.path, &file))
	must(t, unix.Stat(filepath.Dir(c.path), &folder))
	return [2]int64{file.Atim.Nano(), folder.Atim.Nano()}
}

// arm begins to look at the canary, and at everything that is opened by its name in other folders.
func (c *canary) arm(t testing.TB, others ...string) {
	t.Helper()
	c.before = c.times(t)
	var err error
	c.reports, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(c.reports)) })
	for _, folder := range append(others, filepath.Dir(c.path)) {
		id, err := unix.InotifyAddWatch(c.reports, folder, unix.IN_OPEN|unix.IN_ACCESS)
		must(t, err)
		c.folders[id] = folder
	}
}

// opened are the files that were opened since, by their names in the folders; folders may be listed but the canary's.
func (c *canary) opened(t testing.TB) map[string]bool {
	t.Helper()
	found, buffer := map[string]bool{}, make([]byte, 64<<10)
	for {
		n, err := unix.Read(c.reports, buffer)
		if errors.Is(err, unix.EAGAIN) {
			return found
		}
		must(t, err)
		for rest := buffer[:n]; len(rest) > 0; {
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			name := string(bytes.TrimRight(rest[unix.SizeofInotifyEvent:size], "\x00"))
			folder := c.folders[int(binary.NativeEndian.Uint32(rest))]
			if name != "" || folder == filepath.Dir(c.path) {
				found[filepath.Join(folder, name)] = true
			}
			rest = rest[size:]
		}
	}
}

// touched says what there is to see of an access.
func (c *canary) touched(t testing.TB) (byTime bool, opened map[string]bool) {
	t.Helper()
	return c.times(t) != c.before, c.opened(t)
}

func (c *canary) demandUntouched(t testing.TB) {
	t.Helper()
	if byTime, opened := c.touched(t); byTime || len(opened) > 0 {
		t.Errorf("opened were %v; access times were %v, are %v", opened, c.before, c.times(t))
	}
}

func TestCanarySeesEveryWayToReadIt(t *testing.T) {
	open := func(path string, flags int) error {
		fd, err := unix.Open(path, unix.O_RDONLY|flags, 0)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		_, err = unix.Read(fd, make([]byte, 1))
		return errors.Join(err, unix.Close(fd))
	}
	for name, test := range map[string]struct {
		read   func(c *canary) error
		byTime bool
		opened bool
	}{
		"nobody":                  {func(*canary) error { return nil }, false, false},
		"read":                    {func(c *canary) error { return open(c.path, 0) }, true, true},
		"without its access time": {func(c *canary) error { return open(c.path, unix.O_NOATIME) }, false, true},
		"its folder":              {func(c *canary) error { _, err := os.ReadDir(filepath.Dir(c.path)); return err }, true, true},
		"through a link, by a tar that follows it": {func(c *canary) error {
			root := t.TempDir()
			must(t, os.Symlink(c.path, filepath.Join(root, "link")))
			command := exec.Command("tar", "--create", "--dereference", "--file=-", "--directory="+root, ".")
			command.Stdout = &bytes.Buffer{} // to /dev/null it would read nothing
			return command.Run()
		}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := makeCanary(t)
			c.arm(t)
			must(t, test.read(c))
			byTime, opened := c.touched(t)
			if byTime != test.byTime || len(opened) > 0 != test.opened {
				t.Errorf("by time %t, opened %v; want %t, %t", byTime, opened, test.byTime, test.opened)
			}
		})
	}
}

func TestCanaryNamesAFifoThatWasOpened(t *testing.T) {
	c, folder := makeCanary(t), t.TempDir()
	must(t, unix.Mkfifo(filepath.Join(folder, "fifo"), 0o600))
	c.arm(t, folder)
	fd, err := unix.Open(filepath.Join(folder, "fifo"), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	must(t, errors.Join(err, unix.Close(fd)))
	_, opened := c.touched(t)
	if diff := cmp.Diff(map[string]bool{filepath.Join(folder, "fifo"): true}, opened); diff != "" {
		t.Errorf("opened (-want +got):\n%s", diff)
	}
}
