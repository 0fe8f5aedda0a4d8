package volatile

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

const (
	// minHoles is what holes must save for a file to be stored as runs.
	minHoles = 1 << 20
	// maxExtents of one file; what follows is one run.
	maxExtents = 4 << 10
)

// extent is a run of data in a file, or of pages in memory.
type extent struct{ offset, length int64 }

// plan finds the runs of data and cuts them at the limits.
func (r *fileReader) plan(file *File) error {
	opened, err := file.open()
	var extents []extent
	size := int64(file.Size) // #nosec G115 -- the kernel bounds sizes to 63 bits
	if err == nil {
		defer opened.release()
		extents, _, err = watched(file.ctx, r.guard, opened.shared, opened.patience, func(*findings) ([]extent, error) {
			return findExtents(opened.fd, size), nil
		})
		err = file.heed(err)
	}
	if file.ctx.Err() != nil {
		return file.ctx.Err()
	}
	if err != nil {
		return r.gaps.add(file.Name, reasonOf(err), fmt.Errorf("open %s: %w", file.Path, err))
	}
	room := min(r.options.Limits.File, r.options.Limits.FileTotal-r.bytes)
	whole := len(extents) == 1 && extents[0].length == size
	for _, run := range extents {
		if cut := min(run.length, room); cut < run.length {
			file.Truncated = true
			run.length = cut
		}
		room -= run.length
		if run.length == 0 && size > 0 && file.Truncated {
			break
		}
		member := file.Name
		if !whole {
			member = fmt.Sprintf("%s@%016x", file.Name, run.offset)
		}
		file.Runs = append(file.Runs, evidence.VolatileRun{Member: member, Offset: run.offset, Length: run.length})
	}
	if !file.Truncated {
		return nil
	}
	cause := fmt.Errorf("%s: %w", file.Path, limited(fmt.Sprintf("%d bytes", size), r.options.Limits.File))
	return r.gaps.add(file.Name, GapLimit, cause)
}

// findExtents returns the runs of data of a file. A filesystem that does not know gives one run.
func findExtents(fd int, size int64) []extent {
	whole := []extent{{length: size}}
	var extents []extent
	data := int64(0)
	for offset := int64(0); offset < size; {
		start, err := unix.Seek(fd, offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		if err != nil {
			return whole
		}
		end := size
		if len(extents) < maxExtents-1 {
			if hole, err := unix.Seek(fd, start, unix.SEEK_HOLE); err == nil {
				end = min(hole, size)
			}
		}
		if start >= end {
			break
		}
		extents = append(extents, extent{offset: start, length: end - start})
		data += end - start
		offset = end
	}
	if data+minHoles > size {
		return whole
	}
	return extents
}

// CopyRun writes the content of one run, exactly as long as it says, and sets its SHA256. What cannot be read is zeros and
// a gap. Errors are those of w, of Options.Gaps and of the context of Files.
func (f *File) CopyRun(w io.Writer, number int) error {
	run := &f.Runs[number]
	sum := sha256.New()
	opened, err := f.open()
	if err == nil {
		defer opened.release()
	} else if gap := f.unread(run.Offset, err); gap != nil {
		return gap
	}
	zeros := make([]byte, readSize)
	for done := int64(0); done < run.Length; {
		want := int(min(readSize, run.Length-done))
		data := zeros[:want]
		if opened != nil {
			data, err = f.next(opened, run.Offset+done, want)
			if err != nil {
				if gap := f.unread(run.Offset+done, err); gap != nil {
					return gap
				}
				opened, data = nil, zeros[:want]
			}
		}
		if _, err := io.MultiWriter(w, sum).Write(data); err != nil {
			return fmt.Errorf("write %s: %w", run.Member, err)
		}
		done += int64(len(data))
	}
	f.from.bytes += run.Length
	run.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return f.changed(opened)
}

func (f *File) next(opened *content, offset int64, want int) ([]byte, error) {
	data, err := opened.read(f.ctx, f.from.guard, offset, want)
	if err == nil && len(data) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return data, f.heed(err)
}

// open opens the content. What did not answer before is not asked again.
func (f *File) open() (*content, error) {
	if f.silent != nil {
		return nil, f.silent
	}
	opened, err := f.from.servers.open(f.ctx, f.pinned, f.from.options.Limits.Patience)
	return opened, f.heed(err)
}

// heed remembers that the file did not answer, and returns the error.
func (f *File) heed(err error) error {
	if errors.Is(err, errBlocked) {
		f.silent = err
	}
	return f.from.servers.heed(f.pinned, err)
}

func (f *File) unread(offset int64, err error) error {
	if f.ctx.Err() != nil {
		return f.ctx.Err()
	}
	reason := reasonOf(err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		reason = GapChanged
	case reason == GapUnreadable:
		reason = GapReadError
	}
	return f.from.gaps.add(f.Name, reason, fmt.Errorf("zeros from byte %d of %s on: %w", offset, f.Path, err))
}

// changed names a file that is not any more what it was when it was found.
func (f *File) changed(opened *content) error {
	if opened == nil {
		return nil
	}
	now, err := f.describeAgain(f.ctx, opened)
	if f.ctx.Err() != nil {
		return f.ctx.Err()
	}
	if err != nil {
		return f.from.gaps.add(f.Name, reasonOf(err), err)
	}
	if identify(now) != identify(f.pinned.stat) {
		return f.from.gaps.add(f.Name, GapChanged, fmt.Errorf("size was %d and is %d", f.pinned.stat.Size, now.Size))
	}
	return nil
}

func (f *File) describeAgain(ctx context.Context, opened *content) (unix.Statx_t, error) {
	now, _, err := watched(ctx, f.from.guard, opened.shared, opened.patience, func(*findings) (unix.Statx_t, error) {
		var stat unix.Statx_t
		err := unix.Statx(opened.fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &stat)
		return stat, err
	})
	return now, f.heed(err)
}
