package worm

import (
	"fmt"
	"time"
)

// Lock modes that a store knows.
const (
	modeCompliance = "COMPLIANCE"
	modeGovernance = "GOVERNANCE"
)

// normalize checks a lock against the caller's clock and returns it as stores keep it: to the second, in UTC.
func (l Lock) normalize(now time.Time) (Lock, error) {
	if l.Mode != modeCompliance && l.Mode != modeGovernance {
		return Lock{}, fmt.Errorf("lock mode %q is not %s or %s", l.Mode, modeCompliance, modeGovernance)
	}
	until := l.RetainUntil.UTC().Truncate(time.Second)
	if !until.After(now) {
		return Lock{}, fmt.Errorf("retain until %s is not in the future", until.Format(time.RFC3339))
	}
	return Lock{Mode: l.Mode, RetainUntil: until}, nil
}
