package attestor

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

func random(t *testing.T, bytes int) string {
	t.Helper()
	data := make([]byte, bytes)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(data)
}

// TestTheLargestCaptureFitsIntoItsBundle stages the statement over as many encrypted archives as a response can name.
func TestTheLargestCaptureFitsIntoItsBundle(t *testing.T) {
	now := metav1.NowMicro()
	response := &v1alpha1.EventResponse{ObjectMeta: metav1.ObjectMeta{Name: "er-0123456789abcdef-filesystem-snapshot"}}
	response.Status.CompletedAt = &now
	bundle := &v1alpha1.AttestationBundle{}
	object := func(name string) *v1alpha1.StoredObject {
		stored := v1alpha1.StoredObject{
			Key: "forensics/0123456789abcdef/artifacts/" + name + "/0", VersionID: random(t, 18), SHA256: random(t, 32), Size: 123456789,
			RetainUntil: metav1.Now(), Plain: &v1alpha1.PlainContent{Size: 123456789, SHA256: random(t, 32)},
		}
		bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
			Key: stored.Key, VersionID: stored.VersionID, SHA256: stored.SHA256, Size: stored.Size,
		})
		return &stored
	}
	for i := range v1alpha1.MaxArtifacts {
		name := fmt.Sprintf("container-%d-%s/rootfs.tar.zst", i, strings.Repeat("n", 40))
		response.Status.Artifacts = append(response.Status.Artifacts, v1alpha1.Artifact{
			Name: name, Kind: v1alpha1.ArtifactRootFilesystem, Container: "container", MediaType: evidence.MediaTypeTarZstd,
			Segments: []v1alpha1.StoredObject{*object(name)}, Size: 123456789, SHA256: random(t, 32), MerkleRoot: random(t, 32), Entries: 123456,
			IndexLines: 123456, Index: object(name + ".index.ndjson.zst"), Timeline: object(name + ".timeline.body.zst"),
		})
	}
	statement, err := responseStatement(response, bundle, random(t, 32), evidence.Attestor{})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := evidence.Canonical(statement)
	if err != nil {
		t.Fatal(err)
	}
	// A bundle holds the payload as the envelope does, in base64, beside proofs of some kilobytes.
	envelope, err := json.Marshal(map[string]any{"payload": payload, "proofs": random(t, 8<<10)})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := staged(envelope)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes of statement, %d of envelope, %d of %d staged", len(payload), len(envelope), len(packed), maxStaged)
}
