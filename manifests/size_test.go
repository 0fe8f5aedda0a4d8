package manifests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// nameLength of an artifact is that of a container's name of 63 bytes and a file's beside it.
const nameLength = 100

// maxStaged is the bound of status.staged in the API server's JSON, where three bytes are four letters.
const maxStaged = 786432 / 4 * 3

// holdLargest stores as many artifacts as a response can name, all of them archives, and what is observed of them: the
// API server keeps no object of more than 1.5 MiB, its record of who wrote what included.
func holdLargest(t *testing.T, s server) {
	response := &v1alpha1.EventResponse{}
	response.SetName("largest")
	made := object("EventResponse", "largest", responseSpec("FilesystemSnapshot", "filesystemSnapshot"))
	if err := s.client.Create(t.Context(), made); err != nil {
		t.Fatal(err)
	}
	s.get(t, response)
	before := response.DeepCopy()
	for i := range v1alpha1.MaxArtifacts {
		response.Status.Artifacts = append(response.Status.Artifacts, largeArtifact(i))
	}
	s.patchStatus(t, response, before)

	bundle := &v1alpha1.AttestationBundle{}
	bundle.SetName("largest")
	if err := s.client.Create(t.Context(), object("AttestationBundle", "largest", bundleSpec())); err != nil {
		t.Fatal(err)
	}
	s.get(t, bundle)
	seen := bundle.DeepCopy()
	for i := range v1alpha1.MaxObserved {
		found := largeObject(fmt.Sprintf("observed-%d", i))
		bundle.Status.Observed = append(bundle.Status.Observed, v1alpha1.ObservedObject{
			Key: found.Key, VersionID: found.VersionID, SHA256: found.SHA256, Size: found.Size, RetainUntil: found.RetainUntil,
			LockMode: v1alpha1.LockCompliance,
		})
	}
	bundle.Status.Staged = bytes.Repeat([]byte{1}, maxStaged)
	s.patchStatus(t, bundle, seen)
}

func (s server) get(t *testing.T, o client.Object) {
	t.Helper()
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
}

func (s server) patchStatus(t *testing.T, o, before client.Object) {
	t.Helper()
	if err := s.client.Status().Patch(t.Context(), o, client.MergeFrom(before), client.FieldOwner("test")); err != nil {
		t.Fatal(err)
	}
	s.get(t, o)
	content, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	const limit = 3 << 19
	t.Logf("%T: %d of %d bytes", o, len(content), limit)
	if len(content) > limit {
		t.Errorf("%T has %d bytes", o, len(content))
	}
}

func largeArtifact(i int) v1alpha1.Artifact {
	name := fmt.Sprintf("%d-%s", i, strings.Repeat("n", nameLength))[:nameLength]
	index, timeline := largeObject(name+".i"), largeObject(name+".t")
	return v1alpha1.Artifact{
		Name: name, Kind: v1alpha1.ArtifactRootFilesystem, Container: strings.Repeat("c", 63), MediaType: evidence.MediaTypeTarZstd,
		Segments: []v1alpha1.StoredObject{largeObject(name)}, Size: 1 << 40, SHA256: hex, MerkleRoot: hex, Entries: 1 << 20, IndexLines: 1 << 20,
		Index: &index, Timeline: &timeline, FrozenThroughout: true,
	}
}

// largeObject is an encrypted one of a server that gives UUIDs for versions.
func largeObject(name string) v1alpha1.StoredObject {
	name = fmt.Sprintf("%s%s", name, strings.Repeat("n", nameLength))[:nameLength]
	return v1alpha1.StoredObject{
		Key: "forensics/0123456789abcdef/artifacts/" + name + "/a12/0", VersionID: strings.Repeat("v", 36), SHA256: hex, Size: 1 << 40,
		RetainUntil: metav1.Now(), Plain: &v1alpha1.PlainContent{Size: 1 << 40, SHA256: hex},
	}
}
