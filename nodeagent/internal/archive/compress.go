package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWorkers bounds memory on nodes with many cores, and leaves cores to the tenants.
const maxWorkers = 4

// window is how far back zstd looks for what it saw before.
const window = 1 << 20

// Format is a compression of the archive.
type Format string

// Formats.
const (
	Zstd Format = "zstd"
	Gzip Format = "gzip"
)

// encoder compresses src into dst's storage, as one frame. The same input gives the same frame, whatever came before.
type encoder func(dst, src []byte) ([]byte, error)

// encoders returns one encoder for each worker.
func (o Options) encoders() ([]encoder, error) {
	level, err := o.level()
	if err != nil {
		return nil, err
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	encoders := make([]encoder, min(workers, maxWorkers))
	for i := range encoders {
		switch o.Format {
		case Gzip:
			encoders[i], err = gzipEncoder(level)
		case Zstd, "":
			encoders[i], err = zstdEncoder(level)
		default:
			err = fmt.Errorf("unknown format %q", o.Format)
		}
		if err != nil {
			return nil, fmt.Errorf("make %s encoder: %w", o.Format, err)
		}
	}
	return encoders, nil
}

func zstdEncoder(level int) (encoder, error) {
	// The smaller history has room for a whole frame and is never moved.
	w, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)))
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) ([]byte, error) { return w.EncodeAll(src, dst[:0]), nil }, nil
}

func gzipEncoder(level int) (encoder, error) {
	w, err := gzip.NewWriterLevel(io.Discard, level)
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) ([]byte, error) {
		out := bytes.NewBuffer(dst[:0])
		w.Reset(out)
		if _, err := w.Write(src); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	}, nil
}

// level translates an option into the scale of the format; 0 asks for the fastest.
func (o Options) level() (int, error) {
	switch {
	case o.Level == 0:
		return 1, nil
	case o.Level < 0, o.Format == Gzip && o.Level > gzip.BestCompression, o.Level > 22:
		return 0, errors.New("compression level out of range: gzip 1 to 9, zstd 1 to 22")
	}
	return o.Level, nil
}
