package attestor_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/attestor"
	"ugallu.io/forensics/internal/worm"
)

// altered returns other bytes than were stored.
type altered struct{ *worm.Memory }

func (altered) Open(context.Context, string, string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("{}")), nil
}

func (w *world) checker() *attestor.Checker {
	return &attestor.Checker{
		Reader: w.base, Clock: w.clock,
		Verifier: func(context.Context) (attestor.Verifier, error) { return w.notary, nil },
		Store:    func(context.Context, string) (worm.Store, error) { return w.store, nil },
	}
}

func checkerProves(t *testing.T, w *world) {
	checker := w.checker()
	event, other := w.newEvent(), w.newEvent()
	if attested, err := checker.Attested(t.Context(), event); attested || err != nil {
		t.Errorf("no bundle: %t, %v", attested, err)
	}
	w.notary.fail = errors.New("away")
	w.expectFailure(event, v1alpha1.ConditionSigned, v1alpha1.ReasonSignerUnavailable)
	if attested, err := checker.Attested(t.Context(), event); attested || err != nil {
		t.Errorf("not sealed: %t, %v", attested, err)
	}
	w.notary.fail = nil
	w.run(event)
	if attested, err := checker.Attested(t.Context(), event); !attested || err != nil {
		t.Errorf("sealed: %t, %v", attested, err)
	}
	changed := event.DeepCopy()
	changed.Spec.Severity = v1alpha1.SeverityLow
	if attested, err := checker.Attested(t.Context(), changed); attested || err == nil {
		t.Errorf("another spec: %t, %v", attested, err)
	}
	checker.Store = func(context.Context, string) (worm.Store, error) { return altered{w.store}, nil }
	if attested, err := checker.Attested(t.Context(), event); attested || err == nil {
		t.Errorf("other bytes in the store: %t, %v", attested, err)
	}
	checker.Store = func(context.Context, string) (worm.Store, error) { return w.store, nil }
	w.run(other)
	w.point(other, event)
	if attested, err := checker.Attested(t.Context(), other); attested || err == nil {
		t.Errorf("the bundle of another event: %t, %v", attested, err)
	}
}

// point makes the bundle of one event name the stored object of another's, as far as the API server lets anybody.
func (w *world) point(from, to *v1alpha1.SecurityEvent) {
	w.t.Helper()
	old, target := w.bundle(from), w.bundle(to)
	if err := w.base.Delete(w.t.Context(), old); err != nil {
		w.t.Fatal(err)
	}
	forged := &v1alpha1.AttestationBundle{Spec: old.Spec}
	forged.Name = old.Name
	w.create(forged)
	forged.Status = target.Status
	if err := w.base.Status().Update(w.t.Context(), forged); err != nil {
		w.t.Fatal(err)
	}
}
