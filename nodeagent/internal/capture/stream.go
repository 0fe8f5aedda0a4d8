package capture

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
	"ugallu.io/forensics/nodeagent/internal/upload"
)

// sealer says how what is stored is encrypted on its way.
type sealer struct{ seal upload.Seal }

func newSealer(destination v1alpha1.Destination) (sealer, error) {
	if destination.Encryption != v1alpha1.EncryptionAge {
		return sealer{}, nil
	}
	seal, err := upload.Age(destination.AgeRecipients...)
	return sealer{seal}, err
}

// depot is where the objects of one incident are stored.
type depot struct {
	store  worm.Putter
	bucket string
	prefix string
	lock   worm.Lock
	sealer
	claims  *upload.Claims
	writers []*upload.Writer
}

func (c *Capturer) depot(store worm.Putter, destination v1alpha1.Destination, seal sealer) *depot {
	return &depot{
		store: store, bucket: destination.Bucket, prefix: artifacts(destination), sealer: seal, claims: &c.claims,
		lock: worm.Lock{Mode: string(destination.LockMode), RetainUntil: destination.RetainUntil.Time},
	}
}

// artifacts begins every key of an incident's artifacts.
func artifacts(destination v1alpha1.Destination) string { return destination.Prefix + "/artifacts/" }

func (d *depot) options(name string) upload.Options {
	return upload.Options{Folder: d.prefix + name, Lock: d.lock, Seal: d.seal, Claims: d.claims, Bucket: d.bucket}
}

func (d *depot) writer(ctx context.Context, options upload.Options) *upload.Writer {
	writer := upload.NewWriter(ctx, d.store, options)
	d.writers = append(d.writers, writer)
	return writer
}

// taken are the keys in the folders of its writers that are known to be taken.
func (d *depot) taken() []string {
	var keys []string
	for _, writer := range d.writers {
		keys = append(keys, writer.Taken()...)
	}
	return keys
}

// single stores a stream as one object, compressed where compress is set. Nothing is put before something is written, or
// the end is reached.
func (d *depot) single(ctx context.Context, name string, compress bool) (*single, error) {
	options := d.options(name)
	options.First = math.MaxInt64
	s := &single{upload: d.writer(ctx, options)}
	s.Writer = s.upload
	if !compress {
		return s, nil
	}
	var err error
	// An empty stream is one empty frame, so that any tool reads it.
	s.encoder, err = zstd.NewWriter(s.upload, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(1<<20), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	s.Writer = s.encoder
	return s, nil
}

// single is a stream on its way into one object. Either finish or abort ends it.
type single struct {
	io.Writer
	upload  *upload.Writer
	encoder *zstd.Encoder
}

func (s *single) finish() (upload.Result, error) {
	if s.encoder != nil {
		if err := s.encoder.Close(); err != nil {
			s.upload.Abort(err)
			return upload.Result{}, fmt.Errorf("compress: %w", err)
		}
	}
	return s.upload.Finish()
}

// object is the one segment of a finished stream.
func object(result upload.Result) *v1alpha1.StoredObject {
	segment := result.Segments[0]
	segment.Index = 0
	return &segment
}

func (s *single) abort(cause error) {
	s.upload.Abort(cause)
	if s.encoder != nil {
		// It gives back its buffers; what it still would write is refused.
		_ = s.encoder.Close()
	}
}
