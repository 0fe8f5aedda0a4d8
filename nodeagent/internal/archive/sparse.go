package archive

import (
	"crypto/sha256"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"ugallu.io/forensics/api/evidence"
)

const (
	// minHoles is what holes must save for a file to be stored as sparse; below it zeros compress to nothing.
	minHoles = 1 << 20
	// maxExtents of a sparse file: the map then stays below the 1 MiB that readers accept (42 bytes an extent).
	maxExtents = 16 << 10
	// maxHoles is how many bytes of holes are hashed in one archive: some seconds. More than that costs nothing to make.
	maxHoles = 4 << 30
)

// hole is a piece of any hole.
var hole [64 << 10]byte

// extent is a run of data in a sparse file.
type extent struct{ offset, length int64 }

// sparse decides whether the holes of a file are hashed.
func (w *walker) sparse(o *object, r *reading) {
	o.flag(evidence.FlagSparse)
	holes := o.size() - dataSize(r.extents)
	if holes > w.holeRoom {
		o.flag(evidence.FlagHolesNotHashed)
		return
	}
	w.holeRoom -= holes
	r.content = sha256.New()
}

// skipTo hashes the hole before an offset.
func (w *walker) skipTo(r *reading, offset int64) error {
	if r.content == nil {
		return nil
	}
	for r.seen < offset {
		if err := w.interrupted(); err != nil {
			return err
		}
		n := min(offset-r.seen, int64(len(hole)))
		r.content.Write(hole[:n])
		r.seen += n
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
