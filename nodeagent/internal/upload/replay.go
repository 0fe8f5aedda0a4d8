package upload

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"ugallu.io/forensics/api/v1alpha1"
)

// ErrDiverged means that a stream was generated again and is not the recorded one: what it is made from has changed, or it
// was cut short by its caller. In the first case start anew without the recorded segments, which are then among the
// abandoned ones.
var ErrDiverged = errors.New("the stream is not the one that was recorded")

// replay compares the beginning of a stream with the segments that are recorded of it.
type replay struct {
	recorded []v1alpha1.StoredObject
	sum      hash.Hash
	size     int64
}

func newReplay(recorded []v1alpha1.StoredObject) (*replay, error) {
	r := &replay{recorded: recorded, sum: sha256.New()}
	return r, r.pass()
}

// take compares the part of p that is recorded, and returns how much that is.
func (r *replay) take(p []byte) (int, error) {
	taken := 0
	for taken < len(p) && len(r.recorded) > 0 {
		piece := p[taken:]
		if left := plain(&r.recorded[0]).Size - r.size; int64(len(piece)) > left {
			piece = piece[:left]
		}
		r.sum.Write(piece)
		r.size += int64(len(piece))
		taken += len(piece)
		if err := r.pass(); err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// pass goes on to the next segment when the current one is complete.
func (r *replay) pass() error {
	for len(r.recorded) > 0 && r.size == plain(&r.recorded[0]).Size {
		segment := &r.recorded[0]
		if sum := hex.EncodeToString(r.sum.Sum(nil)); sum != plain(segment).SHA256 {
			return fmt.Errorf("%w: %s has the sha256 %s, now it would be %s", ErrDiverged, segment.Key, plain(segment).SHA256, sum)
		}
		r.recorded, r.size = r.recorded[1:], 0
		r.sum.Reset()
	}
	return nil
}

// end is an error if the stream ends before the recorded one does.
func (r *replay) end() error {
	if len(r.recorded) == 0 {
		return nil
	}
	return fmt.Errorf("%w: it ends %d bytes into %s, which has %d",
		ErrDiverged, r.size, r.recorded[0].Key, plain(&r.recorded[0]).Size)
}
