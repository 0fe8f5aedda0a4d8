package order

import (
	"errors"
	"strings"
	"testing"

	"ugallu.io/forensics/api/v1alpha1"
)

func TestPodfreezeKeepsFilesInMemoryAndTheReleaseLetsGoOfThem(t *testing.T) {
	w := newWorld(t)
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
	if len(w.keptMemory[podUID]) != 2 {
		t.Fatalf("kept %v, want the pod's with its two processes", w.keptMemory)
	}
	if _, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))); err != nil {
		t.Fatal(err)
	}
	if len(w.keptMemory) != 0 {
		t.Errorf("still kept: %v", w.keptMemory)
	}
}

func TestFilesInMemoryThatCannotBeKeptArePartial(t *testing.T) {
	w := newWorld(t)
	w.failing = map[string]error{"keep memory": errors.New("no such mount")}
	response, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased)))
	if err != nil {
		t.Fatal(err)
	}
	if message := response.Status.Conditions[0].Message; response.Status.Phase != v1alpha1.ResponsePartial || !strings.Contains(message, "no such mount") {
		t.Errorf("%s: %s", response.Status.Phase, message)
	}
}
