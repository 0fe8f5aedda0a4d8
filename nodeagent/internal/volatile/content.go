package volatile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// readSize of one read: large enough that calls cost nothing.
const readSize = 256 << 10

// content reads a regular file, or a process's memory, without trusting it to answer.
type content struct {
	*shared
	patience time.Duration
	buffer   []byte
}

// read returns up to want bytes at an offset, which are good until the next read; none at the end.
func (c *content) read(ctx context.Context, g *guard, offset int64, want int) ([]byte, error) {
	buffer := c.buffer
	if len(buffer) < want {
		buffer = make([]byte, readSize)
	}
	c.buffer = nil
	on := c.shared
	data, _, err := watched(ctx, g, on, c.patience, func(*findings) ([]byte, error) {
		for {
			n, err := unix.Pread(on.fd, buffer[:want], offset)
			if !errors.Is(err, unix.EINTR) {
				return buffer[:max(n, 0)], err
			}
		}
	})
	switch {
	case errors.Is(err, errBlocked):
		c.patience = min(c.patience, briefly)
	case ctx.Err() == nil:
		c.buffer = buffer
	}
	return data, err
}

// pinned holds what a magic link leads to without opening it: no driver is told, nothing waits, and the object stays while
// the descriptor does, even if the process is killed.
type pinned struct {
	*shared
	stat unix.Statx_t
}

func (p pinned) device() string { return device(p.stat.Dev_major, p.stat.Dev_minor) }

func pin(h *handle, name string) (pinned, error) {
	fd, err := openat(h.fd, name, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return pinned{}, fmt.Errorf("pin %s: %w", name, err)
	}
	var stat unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(fd, "", flags, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &stat); err != nil {
		return pinned{}, errors.Join(fmt.Errorf("look at %s: %w", name, err), unix.Close(fd))
	}
	return pinned{share(fd), stat}, nil
}

func pinWatched(ctx context.Context, g *guard, h *handle, name string) (pinned, error) {
	object, _, err := watched(ctx, g, h.shared, h.patience, func(*findings) (pinned, error) { return pin(h, name) })
	return object, err
}

// reopen opens a pinned regular file for reading. O_NONBLOCK refuses to wait for the holder of a lease. The time of access
// stays as it is where the kernel lets us.
func reopen(pinned *shared) (*shared, error) {
	path := "/proc/self/fd/" + strconv.Itoa(pinned.fd)
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := openat(unix.AT_FDCWD, path, flags|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = openat(unix.AT_FDCWD, path, flags)
	}
	if err != nil {
		return nil, err
	}
	return share(fd), nil
}

// openContent reopens a pinned file that is safe to read.
func openContent(ctx context.Context, g *guard, pinned *shared, patience time.Duration) (*content, error) {
	opened, _, err := watched(ctx, g, pinned, patience, func(*findings) (*shared, error) { return reopen(pinned) })
	if err != nil {
		return nil, err
	}
	return &content{shared: opened, patience: patience}, nil
}

// identified names a version of a file's content.
type identified struct {
	major, minor uint32
	inode, size  uint64
	modified     unix.StatxTimestamp
	changed      unix.StatxTimestamp
}

func identify(stat unix.Statx_t) identified {
	return identified{stat.Dev_major, stat.Dev_minor, stat.Ino, stat.Size, stat.Mtime, stat.Ctime}
}

// digest hashes a whole file of the size that was seen.
func (c *content) digest(ctx context.Context, g *guard, size int64) (string, error) {
	sum := sha256.New()
	for offset := int64(0); offset < size; {
		data, err := c.read(ctx, g, offset, int(min(readSize, size-offset)))
		if err != nil {
			return "", fmt.Errorf("read at %d: %w", offset, err)
		}
		if len(data) == 0 {
			return "", fmt.Errorf("ends at %d of %d: %w", offset, size, io.ErrUnexpectedEOF)
		}
		_, _ = sum.Write(data) // a hash takes everything
		offset += int64(len(data))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
