package attest

import (
	"errors"
	"fmt"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	sigstorebundle "github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// ErrExpired is returned by Log when a signature could not be time-stamped while its certificate was valid. Sign the
// statement again.
var ErrExpired = errors.New("the certificate expired before the signature was time-stamped")

// checkTime verifies a timestamp before anything is logged: an entry that no bundle can use stays in the log for ever.
func (t *Trust) checkTime(bundle *protobundle.Bundle, by signatory) error {
	entity, err := sigstorebundle.NewBundle(bundle)
	if err != nil {
		return fmt.Errorf("make bundle: %w", err)
	}
	timestamps, err := verify.VerifySignedTimestampWithThreshold(entity, t.material, 1)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if by.certificate == nil {
		return nil
	}
	return checkLifetime(timestamps[0].Time, by, time.Now())
}

// checkLifetime tells a certificate that ran out while the signature waited, for which a new one helps, from clocks
// that disagree, where a new one would be no better.
func checkLifetime(stamped time.Time, by signatory, now time.Time) error {
	first, last := by.certificate.NotBefore, by.certificate.NotAfter
	switch {
	case !stamped.Before(first) && !stamped.After(last):
		return nil
	case stamped.After(last) && now.After(last.Add(-maxClockDifference)):
		return ErrExpired
	default:
		return fmt.Errorf("%w: stamped %s, certified from %s to %s: synchronize the clocks of both authorities", ErrClock,
			stamped.UTC().Format(time.RFC3339), first.UTC().Format(time.RFC3339), last.UTC().Format(time.RFC3339))
	}
}
