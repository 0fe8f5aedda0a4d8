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

// plain is what a segment holds of the stream, sealed or not.
func plain(segment *v1alpha1.StoredObject) v1alpha1.PlainContent {
	if segment.Plain != nil {
		return *segment.Plain
	}
	return v1alpha1.PlainContent{Size: segment.Size, SHA256: segment.SHA256}
}

// sending is a segment that is being stored.
type sending struct {
	object *object
	size   int64
	// seal and sum are nil where the bytes are stored as they are.
	seal io.WriteCloser
	sum  hash.Hash
}

func (o *Options) startSegment(ctx context.Context, store worm.Putter, key string) (*sending, error) {
	s := &sending{object: start(ctx, store, key, o.Lock)}
	if o.Seal == nil {
		return s, nil
	}
	var err error
	s.sum = sha256.New()
	if s.seal, err = o.Seal(s.object); err != nil {
		s.object.abort(err)
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

func (s *sending) finish(index int) (v1alpha1.StoredObject, error) {
	if s.seal != nil {
		if err := s.seal.Close(); err != nil {
			s.object.abort(err)
			return v1alpha1.StoredObject{}, fmt.Errorf("seal %s: %w", s.object.key, err)
		}
	}
	stored, err := s.object.finish()
	if err != nil {
		return v1alpha1.StoredObject{}, err
	}
	stored.Index = int32(index) // #nosec G115 -- at most 127
	if s.seal != nil {
		stored.Plain = &v1alpha1.PlainContent{Size: s.size, SHA256: hex.EncodeToString(s.sum.Sum(nil))}
	}
	return stored, nil
}
