package archive

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// readSize of one read: large enough that calls cost nothing, small enough to stay in the cache for the hash.
	readSize = 256 << 10
	// maxPadding is how much of a file is filled with zeros when time runs out in the middle of it, so that the archive
	// stays well-formed. A larger rest ends the stream there.
	maxPadding = 1 << 30
	// minHoles is what holes must save for a file to be stored as sparse; below it zeros compress to nothing.
	minHoles = 1 << 20
	// maxExtents of a sparse file: the map then stays below the 1 MiB that readers accept (42 bytes an extent).
	maxExtents = 16 << 10
)

// extent is a run of data in a sparse file.
type extent struct{ offset, length int64 }

// file archives a regular file.
func (w *walker) file(o *object) error {
	fd, err := open(o.folder, o.name, unix.O_NONBLOCK)
	if err != nil {
		return w.gaps.add(o.path, GapUnreadable, err, entryOf(o, nil))
	}
	err = w.opened(o, fd)
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	return err
}

func (w *walker) opened(o *object, fd int) error {
	looked := o.stat.Ino
	if err := describe(fd, "", &o.stat); err != nil {
		return w.gaps.add(o.path, GapUnreadable, err, nil)
	}
	if o.kind() != unix.S_IFREG || o.stat.Ino != looked {
		return w.gaps.add(o.path, GapChangedWhileRead, errReplaced, nil)
	}
	size := int64(o.stat.Size) // #nosec G115 -- the kernel bounds sizes to 63 bits
	extents := []extent{{length: size}}
	sparse := false
	if int64(o.stat.Blocks)*blockSize+minHoles <= size { // #nosec G115 -- as above
		extents, sparse = findExtents(fd, size)
	}
	stored := dataSize(extents)
	if w.options.MaxBytes > 0 && w.bytesRead+stored > w.options.MaxBytes {
		w.skipped = true
		cause := fmt.Errorf("%d bytes would exceed the limit of %d", stored, w.options.MaxBytes)
		return w.gaps.add(o.path, GapMaxBytes, cause, entryOf(o, nil))
	}
	h, err := w.header(o, flagFile, attributesOf(fd))
	if err != nil {
		return err
	}
	h.size = stored
	var table []byte
	if sparse {
		table = sparseTable(extents)
		h.sparse, h.realSize, h.size = true, size, stored+int64(len(table))
	}
	if err := w.tar.writeHeader(h); err != nil {
		return fmt.Errorf("write header of %q: %w", o.path, err)
	}
	return w.data(o, h, &reading{fd: fd, table: table, extents: extents, sum: sha256.New()})
}

// reading is the state of one file while it is read.
type reading struct {
	fd      int
	table   []byte
	extents []extent
	sum     hash.Hash
	// short is why the content seen ends before the size in the header.
	short error
}

// data writes the content that the header announced, exactly as long, and the leaf.
func (w *walker) data(o *object, h *header, r *reading) error {
	out := io.MultiWriter(w.tar.out, r.sum)
	if _, err := out.Write(r.table); err != nil {
		return fmt.Errorf("write map of %q: %w", o.path, err)
	}
	for _, run := range r.extents {
		if err := w.run(o, r, out, run); err != nil {
			return err
		}
	}
	if err := w.tar.pad(h.size); err != nil {
		return fmt.Errorf("pad %q: %w", o.path, err)
	}
	if err := w.changes(o, r); err != nil {
		return err
	}
	entry := entryOf(o, h)
	entry.Size = int64(o.stat.Size) // #nosec G115 -- the kernel bounds sizes to 63 bits
	entry.Sparse = h.sparse
	entry.SHA256 = hex.EncodeToString(r.sum.Sum(nil))
	if err := w.count(entry); err != nil {
		return err
	}
	return w.remember(o)
}

// run copies one run of data. When the file ends early or fails, zeros fill the announced size.
func (w *walker) run(o *object, r *reading, out io.Writer, run extent) error {
	for done := int64(0); done < run.length; {
		if err := w.goOn(o, r, run.length-done); err != nil {
			return err
		}
		want := w.content[:min(readSize, run.length-done)]
		n := 0
		if r.short == nil {
			n = r.read(want, run.offset+done)
		}
		if n <= 0 {
			clear(want)
			n = len(want)
		}
		if _, err := out.Write(want[:n]); err != nil {
			return fmt.Errorf("write content of %q: %w", o.path, err)
		}
		done += int64(n)
		w.bytesRead += int64(n)
		if w.bytesRead%(1<<20) < int64(n) {
			w.progress()
		}
	}
	return nil
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

// goOn ends reading on a cancelled context, and when time ran out and too much is left to fill up.
func (w *walker) goOn(o *object, r *reading, left int64) error {
	if err := w.interrupted(); err != nil {
		return err
	}
	if r.short != nil || !w.late() {
		return nil //nolint:nilerr // a short file is filled up, and named as a gap at its end
	}
	r.short = errLimit
	if left > maxPadding {
		w.cut = true
		return w.stop(o.path, GapMaxDuration)
	}
	return nil
}

// changes names what differs between the content archived and the file.
func (w *walker) changes(o *object, r *reading) error {
	var after unix.Statx_t
	err := describe(r.fd, "", &after)
	switch {
	case errors.Is(r.short, errLimit):
		return w.gaps.add(o.path, GapMaxDuration, errors.New("the rest of this file is zeros"), nil)
	case r.short != nil && !errors.Is(r.short, io.ErrUnexpectedEOF):
		return w.gaps.add(o.path, GapReadError, r.short, nil)
	case r.short != nil:
		return w.gaps.add(o.path, GapChangedWhileRead, r.short, nil)
	case err != nil:
		return w.gaps.add(o.path, GapUnreadable, err, nil)
	case after.Size != o.stat.Size || after.Mtime != o.stat.Mtime || after.Ctime != o.stat.Ctime:
		cause := fmt.Errorf("size was %d and is %d, modified %s and %s",
			o.stat.Size, after.Size, stamp(o.stat.Mtime), stamp(after.Mtime))
		return w.gaps.add(o.path, GapChangedWhileRead, cause, nil)
	}
	return nil
}

// findExtents returns the runs of data of a file and whether holes are worth recording. A filesystem that does not
// know, or a file with too many runs, gives one long run for the rest.
func findExtents(fd int, size int64) ([]extent, bool) {
	var extents []extent
	for offset := int64(0); offset < size; {
		start, err := unix.Seek(fd, offset, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break
		}
		end := size
		if err == nil && len(extents) < maxExtents-2 {
			if hole, err := unix.Seek(fd, start, unix.SEEK_HOLE); err == nil {
				end = min(hole, size)
			}
		}
		if err != nil {
			start = offset
		}
		if start >= size {
			break
		}
		extents = append(extents, extent{offset: start, length: end - start})
		offset = end
	}
	if dataSize(extents)+minHoles > size {
		return []extent{{length: size}}, false
	}
	if len(extents) == 0 || extents[len(extents)-1].offset+extents[len(extents)-1].length < size {
		// GNU tar takes the size of a file that ends in a hole from an empty run at its end.
		extents = append(extents, extent{offset: size})
	}
	return extents, true
}

func dataSize(extents []extent) int64 {
	total := int64(0)
	for _, run := range extents {
		total += run.length
	}
	return total
}

// sparseTable is the map of GNU's sparse format 1.0: decimal numbers, one a line, padded to a block.
func sparseTable(extents []extent) []byte {
	table := strconv.AppendInt(nil, int64(len(extents)), 10)
	table = append(table, '\n')
	for _, run := range extents {
		table = append(strconv.AppendInt(table, run.offset, 10), '\n')
		table = append(strconv.AppendInt(table, run.length, 10), '\n')
	}
	rest := (blockSize - len(table)%blockSize) % blockSize
	return append(table, make([]byte, rest)...)
}
