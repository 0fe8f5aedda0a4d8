package attestor_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/worm"
)

// saysWhatLiesUnderTrust has something lie under the key of the trust beside a record, which anybody can tell beforehand.
func saysWhatLiesUnderTrust(t *testing.T, config *rest.Config) {
	own := newWorld(t, config).trust()["key.pub"]
	for name, tt := range map[string]struct {
		content, mode   string
		keep            time.Duration
		reason, message string
	}{
		"longer":            {own + " and more", "COMPLIANCE", 48 * time.Hour, v1alpha1.ReasonBundleInvalid, "delete marker"},
		"shorter":           {"short", "COMPLIANCE", 48 * time.Hour, v1alpha1.ReasonBundleInvalid, "delete marker"},
		"kept too short":    {own, "COMPLIANCE", time.Hour, v1alpha1.ReasonStoreNotLocked, "extend the retention"},
		"not kept firmly":   {own, "GOVERNANCE", 48 * time.Hour, v1alpha1.ReasonStoreNotLocked, "COMPLIANCE"},
		"as the attestor's": {own, "COMPLIANCE", 72 * time.Hour, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := newWorld(t, config).playShort()
			whole, err := evidence.Canonical(s.trust())
			if err != nil {
				t.Fatal(err)
			}
			key := evidence.TrustKey(s.incident.Spec.Snapshot.Destination.Prefix, evidence.Digest(whole), "key.pub")
			lock := worm.Lock{Mode: tt.mode, RetainUntil: s.clock.Now().Add(tt.keep)}
			if _, err := s.store.Put(t.Context(), key, strings.NewReader(tt.content), lock); err != nil {
				t.Fatal(err)
			}
			if tt.reason != "" {
				s.waitsFor(s.incident, 1, tt.reason, key)
				s.waitsFor(s.incident, 1, tt.reason, tt.message)
				s.hideNewest()
			}
			s.record(s.incident, 1)
			s.checkRecord(s.incident, 1)
		})
	}
}

// lockless is a store of a bucket without Object Lock.
type lockless struct{ *worm.Memory }

func (lockless) Put(_ context.Context, key string, _ io.Reader, _ worm.Lock) (worm.Object, error) {
	return worm.Object{}, fmt.Errorf("put %s: %w", key, worm.ErrNotLocked)
}

// saysThatNothingIsLocked has neither an event's bundle nor a record stored in such a bucket.
func saysThatNothingIsLocked(t *testing.T, config *rest.Config) {
	s := newWorld(t, config).playShort()
	event, there := s.newEvent(), s.stages.Store
	s.stages.Store = func(context.Context, string) (worm.Store, error) { return lockless{s.store}, nil }
	s.expectFailure(event, v1alpha1.ConditionSealed, v1alpha1.ReasonStoreNotLocked)
	s.waitsFor(s.incident, 1, v1alpha1.ReasonStoreNotLocked, "not locked")
	s.stages.Store = there
	s.run(event)
	s.record(s.incident, 1)
}
