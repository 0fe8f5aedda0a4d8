package volatile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// handle is one process, bound to it and to no later one with the same id: files are opened relative to its folder in
// /proc, which the kernel empties with the process.
type handle struct {
	Process
	// shared is the process's folder.
	*shared
	// through is the folder of the thread that is read: `task/TID/` where the main thread ended first, else empty.
	through string
	// patience shrinks after the process kept us waiting.
	patience time.Duration
}

// open holds a process. A process that is gone is errEnded.
func open(process Process, patience time.Duration) (*handle, error) {
	folder, err := unix.Open("/proc/"+strconv.Itoa(process.PID), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if gone(err) {
		return nil, errEnded
	}
	if err != nil {
		return nil, fmt.Errorf("open /proc/%d: %w", process.PID, err)
	}
	h := &handle{Process: process, shared: share(folder), patience: patience}
	started, err := h.started()
	if err == nil && process.StartTicks != 0 && process.StartTicks != started {
		err = errReplaced
	}
	if err != nil {
		h.release()
		if gone(err) {
			err = errEnded
		}
		return nil, err
	}
	h.StartTicks = started
	return h, nil
}

func (h *handle) started() (uint64, error) {
	stat, err := h.stat("stat")
	return stat.started, err
}

func (h *handle) stat(name string) (stat, error) {
	content, _, err := h.read(name, 4<<10)
	if err != nil {
		return stat{}, err
	}
	return parseStat(content)
}

// check says whether the process is still the one that was opened and has not ended: its memory and files are there.
func (h *handle) check() error {
	now, err := h.stat("stat")
	switch {
	case gone(err):
		return errEnded
	case err != nil:
		return err
	case now.started != h.StartTicks:
		return errReplaced
	case h.through == "" && (now.state == "Z" || now.state == "X"):
		return errEnded
	case h.through != "":
		if _, err := h.stat(h.through + "stat"); gone(err) {
			return errEnded
		}
	}
	return nil
}

// file opens a file below the process's folder. Files of /proc do not wait when they are opened; magic links are never
// followed here.
func (h *handle) file(name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := openat(h.fd, name, flags)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil // #nosec G115 -- a descriptor
}

func openat(folder int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(folder, name, flags, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// read returns a file's content up to limit bytes, and whether there is more.
func (h *handle) read(name string, limit int) (content string, more bool, err error) {
	file, err := h.file(name)
	if err != nil {
		return "", false, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, int64(limit)+1))
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > limit {
		return string(data[:limit]), true, nil
	}
	return string(data), false, nil
}

// maxLine is how much of a line of any table is kept. The kernel bounds no path in them: folders can be nested without end.
const maxLine = 64 << 10

var errLong = fmt.Errorf("the limits are %d bytes of a line and %d of all, as JSON", maxLine, maxEncoded)

// lines calls line for each line of a file, as scan does.
func (h *handle) lines(name string, line func(text string, cut bool) bool) error {
	file, err := h.file(name)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return scan(file, name, line)
}

// scan calls line for each line of a table, without its end, until it says false. Of a line that is longer than maxLine only
// the beginning is told: cut.
func scan(from io.Reader, name string, line func(text string, cut bool) bool) error {
	reader := bufio.NewReader(from)
	var text []byte
	cut, last := false, false
	for !last {
		piece, err := reader.ReadSlice('\n')
		last = errors.Is(err, io.EOF)
		piece = bytes.TrimSuffix(piece, []byte("\n"))
		kept := min(len(piece), maxLine-len(text))
		text = append(text, piece[:kept]...)
		cut = cut || kept < len(piece)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && !last:
			return fmt.Errorf("read %s: %w", name, err)
		case last && len(text) == 0:
			return nil
		}
		last = !line(string(text), cut) || last
		text, cut = text[:0], false
	}
	return nil
}

// link reads a magic link without following it. The kernel does not tell a path of more than a page: ENAMETOOLONG.
func (h *handle) link(name string) (string, error) {
	for size := 4 << 10; ; size = maxLine {
		buffer := make([]byte, size)
		n, err := unix.Readlinkat(h.fd, name, buffer)
		if err != nil {
			return "", fmt.Errorf("read link %s: %w", name, err)
		}
		if n < size || size == maxLine {
			return string(buffer[:n]), nil
		}
	}
}

// names lists a folder, in the kernel's order, until next says false.
func (h *handle) names(name string, next func(string) bool) error {
	fd, err := openat(h.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open %s: %w", name, err)
	}
	folder := os.NewFile(uintptr(fd), name) // #nosec G115 -- a descriptor
	defer func() { _ = folder.Close() }()
	for {
		names, err := folder.Readdirnames(512)
		for _, entry := range names {
			if !next(entry) {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", name, err)
		}
	}
}

// look describes what a magic link leads to from what the kernel has in memory: it asks no server of a filesystem.
func (h *handle) look(name string) (unix.Statx_t, error) {
	var found unix.Statx_t
	const flags = unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	if err := unix.Statx(h.fd, name, flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &found); err != nil {
		return found, fmt.Errorf("look at %s: %w", name, err)
	}
	return found, nil
}

func device(major, minor uint32) string {
	return strconv.FormatUint(uint64(major), 10) + ":" + strconv.FormatUint(uint64(minor), 10)
}

// deletedMark is what the kernel adds to the path of a file whose name is gone.
const deletedMark = " (deleted)"

func markedDeleted(path string) bool { return strings.HasSuffix(path, deletedMark) }
