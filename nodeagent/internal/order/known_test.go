package order

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ugallu.io/forensics/api/v1alpha1"
)

// demandKnown demands what is known of the pod.
func demandKnown(t *testing.T, node Node, contained bool) {
	t.Helper()
	known, err := intents(t.Context(), node)
	if err != nil || known[podUID].contained != contained {
		t.Errorf("known: %+v (%v), want contained %t", known, err, contained)
	}
}

// TestWhatThisProcessClosedIsKnownBeforeTheAPIServerIsReached has orders come in while the open incidents are not known yet.
func TestWhatThisProcessClosedIsKnownBeforeTheAPIServerIsReached(t *testing.T) {
	w := newWorld(t)
	folder := t.TempDir()
	w.agent.node.Known = NewKnown(w.client, folder)
	demandKnown(t, w.agent.node, false)
	freeze := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	if _, err := w.carryOut(freeze); err != nil {
		t.Fatal(err)
	}
	demandKnown(t, w.agent.node, true)
	w.agent.node.Known = NewKnown(w.client, folder) // as after another restart
	demandKnown(t, w.agent.node, true)
	if _, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))); err != nil {
		t.Fatal(err)
	}
	demandKnown(t, w.agent.node, false)
}

// TestAnOrderOfTheJournalThatThisProcessClosedIsClosed has the journal say that the order is open.
func TestAnOrderOfTheJournalThatThisProcessClosedIsClosed(t *testing.T) {
	w := newWorld(t)
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	freeze := w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))
	if err := w.agent.node.Known.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.agent.node.Known = NewKnown(w.client, filepath.Dir(w.agent.node.Known.journal))
	demandKnown(t, w.agent.node, false)
	if _, err := w.carryOut(freeze); err != nil {
		t.Fatal(err)
	}
	demandKnown(t, w.agent.node, true)
	if known, err := w.agent.node.Known.read(t.Context()); err != nil || len(known.Responses) != 1 || len(known.Incidents) != 1 {
		t.Errorf("known: %+v (%v)", known, err)
	}
}

// TestTheJournalHasNoListOfWhatWasStored has it tell of a pod as the whole records do.
func TestTheJournalHasNoListOfWhatWasStored(t *testing.T) {
	w := newWorld(t)
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased), closed(v1alpha1.ResponseSucceeded))
	w.order(v1alpha1.StepSnapshot, snapshot(), closed(v1alpha1.ResponseSucceeded), func(r *v1alpha1.EventResponse) {
		r.Status.Artifacts = []v1alpha1.Artifact{{Name: "web/upper.tar.zst", Kind: v1alpha1.ArtifactRootFilesystem}}
	})
	if err := w.agent.node.Known.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	journal := w.agent.node.Known.journal
	content, err := os.ReadFile(journal)
	if err != nil || strings.Contains(string(content), "upper.tar.zst") {
		t.Errorf("journal %s (%v)", content, err)
	}
	before, err := intents(t.Context(), w.agent.node)
	if err != nil {
		t.Fatal(err)
	}
	w.agent.node.Known = NewKnown(w.client, filepath.Dir(journal))
	if after, err := intents(t.Context(), w.agent.node); err != nil || !after[podUID].frozen || after[podUID].open != before[podUID].open {
		t.Errorf("known %+v (%v), before the restart %+v", after, err, before)
	}
}

// TestADiskThatHangsDoesNotKeepAPod has the write of the journal not return while a pod is to be let go.
func TestADiskThatHangsDoesNotKeepAPod(t *testing.T) {
	w := newWorld(t)
	hang := make(chan struct{})
	defer close(hang)
	w.agent.node.Known.replace = func(string, []byte) error {
		<-hang
		return nil
	}
	within, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	for range 2 { // the second waits for the first
		if err := w.agent.node.Known.save(within); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a write that hangs: %v", err)
		}
	}
}

// TestAReleaseUnderWayIsKnownBeforeTheAPIServerIsReached has an agent that does not know the open incidents yet carry it out.
func TestAReleaseUnderWayIsKnownBeforeTheAPIServerIsReached(t *testing.T) {
	w := newWorld(t)
	w.incident(incidentName, incidentUID, v1alpha1.FreezeUntilReleased)
	if _, err := w.carryOut(w.order(v1alpha1.StepFreeze, podFreeze(v1alpha1.FreezeUntilReleased))); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(w.agent.node.Known.journal)
	w.agent.node.Known = NewKnown(w.client, folder)
	w.failing = map[string]error{"thaw id-web": errors.New("killed")}
	if _, err := w.carryOut(w.order(v1alpha1.StepUnfreeze, podUnfreeze(v1alpha1.DispositionResume, false))); err == nil {
		t.Fatal("the release went through")
	}
	demandKnown(t, w.agent.node, false)
	w.agent.node.Known = NewKnown(w.client, folder)
	demandKnown(t, w.agent.node, false)
}
