package capture_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/nodeagent/internal/capture"
)

func someFlows() []evidence.Flow {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return []evidence.Flow{
		{Direction: evidence.FlowFromPod, EtherType: 2048, Protocol: 6, Source: "10.0.0.1", Destination: "10.0.0.2", DestinationPort: 443, Packets: 3, Bytes: 180, First: true, FirstDrop: at, LastDrop: at.Add(time.Second)},
		{Direction: evidence.FlowToPod, EtherType: 2054, Packets: 1, Bytes: 42, FirstDrop: at, LastDrop: at},
	}
}

func readFlows(t *testing.T, f *fixture, object v1alpha1.StoredObject) []evidence.Flow {
	t.Helper()
	plain, err := zstd.NewReader(bytes.NewReader(f.read(t, object)))
	must(t, err)
	defer plain.Close()
	var flows []evidence.Flow
	for lines := json.NewDecoder(plain); lines.More(); {
		var flow evidence.Flow
		must(t, lines.Decode(&flow))
		flows = append(flows, flow)
	}
	return flows
}

func TestFlowsAreStoredFirstAndOnce(t *testing.T) {
	f := newFixture(t, "id-a")
	order := order(capture.Container{ID: "id-a", Name: "a"})
	asked := 0
	order.Flows = func() ([]evidence.Flow, error) {
		asked++
		return someFlows(), nil
	}
	result, err := f.capturer().Capture(t.Context(), order, nil)
	must(t, err)
	if len(result.Artifacts) != 3 || result.Artifacts[0].Kind != v1alpha1.ArtifactDroppedFlows || result.Artifacts[0].Entries != 2 {
		t.Fatalf("artifacts %+v, want the flows before the root filesystem", result.Artifacts)
	}
	if diff := cmp.Diff(someFlows(), readFlows(t, f, result.Artifacts[0].Segments[0])); diff != "" {
		t.Errorf("stored flows (-want +got):\n%s", diff)
	}
	order.Previous = result
	again, err := f.capturer().Capture(t.Context(), order, nil)
	must(t, err)
	if len(again.Artifacts) != 3 || asked != 1 {
		t.Errorf("asked %d times, artifacts %+v", asked, again.Artifacts)
	}
}

func TestFlowsThatCannotBeReadAreAGapAndKeepNothingBack(t *testing.T) {
	f := newFixture(t, "id-a")
	order := order(capture.Container{ID: "id-a", Name: "a"})
	order.Flows = func() ([]evidence.Flow, error) { return nil, errors.New("no such map") }
	result, err := f.capturer().Capture(t.Context(), order, nil)
	must(t, err)
	if len(result.Artifacts) != 2 || len(result.Gaps) != 1 || result.Gaps[0].Reason != evidence.GapFlowsNotRead {
		t.Errorf("result %+v", result)
	}
}

func TestFlowsAtTheReleaseAreAnObjectOfTheirOwn(t *testing.T) {
	f := newFixture(t)
	destination := order().Action.Destination
	stored, err := f.capturer().StoreFlows(t.Context(), destination, "flows-at-release.ndjson.zst", someFlows())
	must(t, err)
	if diff := cmp.Diff(someFlows(), readFlows(t, f, stored)); diff != "" {
		t.Errorf("stored flows (-want +got):\n%s", diff)
	}
	if again, err := f.capturer().StoreFlows(t.Context(), destination, "flows-at-release.ndjson.zst", nil); err != nil || again.Key == stored.Key {
		t.Errorf("a second start stored %+v, %v", again, err)
	}
}
