package upload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// Segment is a stored part of a stream.
type Segment struct {
	v1alpha1.StoredObject `json:",inline"`
	// Plain is what was sealed into the object; nil where the object is the plain bytes.
	Plain *Plain `json:"plain,omitempty"`
}

// Plain describes bytes of the stream.
type Plain struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// plain is what the segment holds of the stream, sealed or not.
func (s *Segment) plain() Plain {
	if s.Plain != nil {
		return *s.Plain
	}
	return Plain{Size: s.Size, SHA256: s.SHA256}
}

// sending is a segment that is being stored.
type sending struct {
	object *Object
	size   int64
	// seal and sum are nil where the bytes are stored as they are.
	seal io.WriteCloser
	sum  hash.Hash
}

func (o *Options) startSegment(ctx context.Context, store worm.Putter, key string) (*sending, error) {
	s := &sending{object: Start(ctx, store, key, o.Lock)}
	if o.Seal == nil {
		return s, nil
	}
	var err error
	s.sum = sha256.New()
	if s.seal, err = o.Seal(s.object); err != nil {
		s.object.Abort(err)
		return nil, fmt.Errorf("seal %s: %w", key, err)
	}
	return s, nil
}

func (s *sending) Write(p []byte) (n int, err error) {
	if s.seal == nil {
		n, err = s.object.Write(p)
	} else {
		n, err = s.seal.Write(p)
		s.sum.Write(p[:n])
	}
	s.size += int64(n)
	return n, err
}

func (s *sending) finish(index int) (Segment, error) {
	if s.seal != nil {
		if err := s.seal.Close(); err != nil {
			s.object.Abort(err)
			return Segment{}, fmt.Errorf("seal %s: %w", s.object.key, err)
		}
	}
	stored, err := s.object.Finish()
	if err != nil {
		return Segment{}, err
	}
	stored.Index = int32(index) // #nosec G115 -- at most 127
	segment := Segment{StoredObject: stored}
	if s.seal != nil {
		segment.Plain = &Plain{Size: s.size, SHA256: hex.EncodeToString(s.sum.Sum(nil))}
	}
	return segment, nil
}
