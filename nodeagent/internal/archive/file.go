package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

const (
	// readSize of one read: large enough that calls cost nothing, small enough to stay in the cache for the hash.
	readSize = 256 << 10
	// maxHashed is how much of a file is hashed that is filled with zeros because time ran out in the middle of it. A larger
	// rest is filled as well, so that the archive stays well-formed, and has no hash: that would take minutes.
	maxHashed = 1 << 30
)

// file archives a regular file.
func (w *walker) file(o *object) error {
	fd, err := open(o.folder, o.name, unix.O_NONBLOCK)
	if err != nil {
		return w.missing(o, whyClosed(err), err)
	}
	err = w.opened(o, fd)
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	return err
}

func (w *walker) opened(o *object, fd int) error {
	looked := identity(o)
	if err := describe(fd, "", &o.stat); err != nil {
		return w.missing(o, GapUnreadable, err)
	}
	if o.kind() != unix.S_IFREG || identity(o) != looked {
		o.flag(evidence.FlagChangedWhileRead)
		return w.missing(o, GapChangedWhileRead, errReplaced)
	}
	if w.cameBefore(o) {
		return w.missing(o, GapMovedWhileRead, errMoved)
	}
	r := &reading{fd: fd, extents: []extent{{length: o.size()}}, stored: sha256.New()}
	sparse := false
	if int64(o.stat.Blocks)*blockSize+minHoles <= o.size() { // #nosec G115 -- the kernel bounds sizes to 63 bits
		r.extents, sparse = findExtents(fd, o.size())
	}
	size := dataSize(r.extents)
	if w.options.MaxBytes > 0 && w.bytesRead+size > w.options.MaxBytes {
		w.skipped = true
		return w.missing(o, GapMaxBytes, fmt.Errorf("%d bytes would exceed the limit of %d", size, w.options.MaxBytes))
	}
	h, err := w.header(o, flagFile, attributesOf(fd))
	if err != nil {
		return err
	}
	h.size = size
	if sparse {
		r.table = sparseTable(r.extents)
		h.sparse, h.realSize, h.size = true, o.size(), size+int64(len(r.table))
		w.sparse(o, r)
	}
	if err := w.start(o, h); err != nil {
		return err
	}
	return w.data(o, h, r)
}

// reading is the state of one file while it is read.
type reading struct {
	fd      int
	table   []byte
	extents []extent
	// stored hashes what goes into the archive; content hashes a sparse file as a reader sees it, when it is wanted.
	stored, content hash.Hash
	// seen is how far content was hashed.
	seen int64
	// short is why the content seen ends before the size in the header.
	short error
	// unhashed says that what is left is not even hashed.
	unhashed bool
}

// data writes the content that the header announced, exactly as long, and ends the entry.
func (w *walker) data(o *object, h *header, r *reading) error {
	r.stored.Write(r.table)
	if _, err := w.compressor.Write(r.table); err != nil {
		return fmt.Errorf("write map of %q: %w", o.path, err)
	}
	for _, run := range r.extents {
		if err := w.run(o, r, run); err != nil {
			return err
		}
	}
	if _, err := w.compressor.Write(zeros[:padding(h.size)]); err != nil {
		return fmt.Errorf("pad %q: %w", o.path, err)
	}
	if !r.unhashed {
		w.sums(o, h, r)
	}
	if err := w.changes(o, r); err != nil {
		return err
	}
	if len(o.gaps) == 0 {
		if err := w.compare(o); err != nil {
			return err
		}
	}
	if err := w.remember(o); err != nil {
		return err
	}
	return w.count(o, h)
}

func (w *walker) sums(o *object, h *header, r *reading) {
	sum := hex.EncodeToString(r.stored.Sum(nil))
	if !h.sparse {
		o.sha256 = sum
		return
	}
	o.stored = sum
	if r.content != nil {
		o.sha256 = hex.EncodeToString(r.content.Sum(nil))
	}
}

// run copies one run of data. When the file ends early or fails, zeros fill the announced size.
func (w *walker) run(o *object, r *reading, run extent) error {
	if err := w.skipTo(r, run.offset); err != nil {
		return err
	}
	for done := int64(0); done < run.length; {
		if err := w.goOn(r, run.length-done); err != nil {
			return err
		}
		if r.unhashed {
			return w.compressor.zeros(run.length - done)
		}
		space, err := w.compressor.room(min(readSize, run.length-done))
		if err != nil {
			return fmt.Errorf("write content of %q: %w", o.path, err)
		}
		n := 0
		if r.short == nil {
			n = r.read(space, run.offset+done)
		}
		if n <= 0 {
			clear(space)
			n = len(space)
		}
		r.hash(space[:n])
		w.compressor.filled(n)
		done += int64(n)
		w.bytesRead += int64(n)
		if w.bytesRead%(1<<20) < int64(n) {
			w.progress()
		}
	}
	return nil
}

func (r *reading) hash(p []byte) {
	r.stored.Write(p)
	if r.content != nil {
		r.content.Write(p)
		r.seen += int64(len(p))
	}
}

// read returns how much it read at an offset, or 0 and remembers why.
func (r *reading) read(p []byte, offset int64) int {
	for {
		n, err := unix.Pread(r.fd, p, offset)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			r.short = fmt.Errorf("read at %d: %w", offset, err)
		case n == 0:
			r.short = fmt.Errorf("ends at %d: %w", offset, io.ErrUnexpectedEOF)
		}
		return max(n, 0)
	}
}

// goOn ends the archive on a cancelled context, and reading when time ran out.
func (w *walker) goOn(r *reading, left int64) error {
	if err := w.interrupted(); err != nil {
		return err
	}
	if r.short != nil || !w.late() {
		return nil //nolint:nilerr // a short file is filled up, and named as a gap at its end
	}
	r.short, r.unhashed, w.skipped = errLimit, left > w.hashed, true
	return nil
}

// changes names what differs between the content archived and the file.
func (w *walker) changes(o *object, r *reading) error {
	var after unix.Statx_t
	err := describe(r.fd, "", &after)
	switch {
	case errors.Is(r.short, errLimit):
		return w.gap(o, GapMaxDuration, errors.New("the rest of this file is zeros"))
	case r.short != nil && !errors.Is(r.short, io.ErrUnexpectedEOF):
		return w.gap(o, GapReadError, r.short)
	case r.short != nil:
		o.flag(evidence.FlagChangedWhileRead)
		return w.gap(o, GapChangedWhileRead, r.short)
	case err != nil:
		return w.gap(o, GapUnreadable, err)
	case after.Size != o.stat.Size || after.Mtime != o.stat.Mtime || after.Ctime != o.stat.Ctime:
		o.flag(evidence.FlagChangedWhileRead)
		cause := fmt.Errorf("size was %d and is %d, modified %s and %s",
			o.stat.Size, after.Size, stamp(o.stat.Mtime), stamp(after.Mtime))
		return w.gap(o, GapChangedWhileRead, cause)
	}
	return nil
}
