package order

import (
	"errors"
	"testing"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestWhatAPersonMustDoIsTheReasonWhileTheOrderIsRepeated(t *testing.T) {
	w := newWorld(t)
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
	full := true
	w.capture = func(Capture) error {
		if full {
			return Trouble{v1alpha1.ReasonStoreFull, errors.New("make room in the store: no space left")}
		}
		return nil
	}
	w.captured = Captured{Artifacts: []v1alpha1.Artifact{{Name: "web/rootfs.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem}}}
	order := w.order(v1alpha1.StepSnapshot, snapshot())
	record, err := w.carryOut(order)
	if err == nil || record.Status.CompletedAt != nil || record.Status.Conditions[0].Reason != v1alpha1.ReasonStoreFull {
		t.Fatalf("error %v, %+v", err, record.Status.Conditions)
	}
	w.sayWhy(record, "make room in the store")
	full = false
	if record, err = w.carryOut(order); err != nil || record.Status.CompletedAt == nil {
		t.Errorf("error %v, %+v", err, record.Status.Conditions)
	}
}
