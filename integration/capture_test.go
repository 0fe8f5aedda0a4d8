//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/integration/internal/tree"
)

func TestCaptureArchiveEqualsTree(t *testing.T) {
	held := suite.held.get(t, heldScene)
	snapshot := suite.responses(t, held)[v1alpha1.StepSnapshot]
	if snapshot.Status.Phase != v1alpha1.ResponseSucceeded {
		t.Fatalf("filesystem-snapshot is %q with gaps %+v", snapshot.Status.Phase, snapshot.Status.Gaps)
	}
	bucket := snapshot.Spec.Action.FilesystemSnapshot.Destination.Bucket
	ids := suite.containerIDs(t, held.suspect())
	for _, name := range []string{webName, sideName} {
		t.Run(name, func(t *testing.T) {
			artifact := rootFilesystem(t, snapshot, name)
			archived := openArchive(t, bucket, artifact)
			live := suite.liveTree(t, held.victim.Spec.NodeName, ids[name])
			if int64(len(archived)) != artifact.Entries {
				t.Errorf("the archive has %d entries, claimed are %d", len(archived), artifact.Entries)
			}
			compareTrees(t, live, archived)
			planted := archived["srv/planted/evidence.txt"]
			if planted.SHA256 != evidence.Digest([]byte("the planted evidence\n")) || planted.LinkedWith == "" {
				t.Errorf("the planted file is %+v", planted)
			}
		})
	}
}

// rootFilesystem is the one whole archive of a container in a response.
func rootFilesystem(tb testing.TB, response v1alpha1.EventResponse, container string) v1alpha1.Artifact {
	tb.Helper()
	var found []v1alpha1.Artifact
	for _, artifact := range response.Status.Artifacts {
		if artifact.Kind == v1alpha1.ArtifactRootFilesystem && artifact.Container == container {
			found = append(found, artifact)
		}
	}
	if len(found) != 1 {
		tb.Fatalf("container %s has %d root filesystem artifacts, want 1: %+v", container, len(found), response.Status.Artifacts)
	}
	if found[0].Truncated || !found[0].FrozenThroughout {
		tb.Errorf("artifact %s: truncated %t, frozen throughout %t", found[0].Name, found[0].Truncated, found[0].FrozenThroughout)
	}
	return found[0]
}

// openArchive concatenates the segments, checks every digest and reads the archive.
func openArchive(tb testing.TB, bucket string, artifact v1alpha1.Artifact) tree.Tree {
	tb.Helper()
	store := suite.analyst(tb)
	var stream bytes.Buffer
	for i, segment := range artifact.Segments {
		if int(segment.Index) != i {
			tb.Fatalf("segment %d of %s has index %d", i, artifact.Name, segment.Index)
		}
		stream.Write(store.fetch(tb, bucket, segment))
	}
	if int64(stream.Len()) != artifact.Size || evidence.Digest(stream.Bytes()) != artifact.SHA256 {
		tb.Errorf("%s: the stream has %d bytes with sha256 %s, claimed are %d and %s", artifact.Name,
			stream.Len(), evidence.Digest(stream.Bytes()), artifact.Size, artifact.SHA256)
	}
	if artifact.MediaType != evidence.MediaTypeTarZstd {
		tb.Errorf("%s has media type %s", artifact.Name, artifact.MediaType)
	}
	plain, err := zstd.NewReader(&stream)
	if err != nil {
		tb.Fatal(err)
	}
	defer plain.Close()
	archived, err := tree.FromArchive(plain)
	if err != nil {
		tb.Fatalf("read %s: %v", artifact.Name, err)
	}
	// What follows the end of the archive would be evidence that no reader sees.
	if rest, err := io.Copy(io.Discard, plain); err != nil || rest > 10<<10 {
		tb.Errorf("%s: %d bytes follow the end of the archive (%v)", artifact.Name, rest, err)
	}
	return archived
}

// compareTrees reports at most twenty differing entries. A socket cannot be in a tar archive; it must be the only
// kind of entry that is missing.
func compareTrees(tb testing.TB, live, archived tree.Tree) {
	tb.Helper()
	differences, sockets := 0, 0
	report := func(text string) {
		if differences++; differences <= 20 {
			tb.Error(text)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(live)) {
		kept, found := archived[path]
		switch {
		case !found && live[path].Type == tree.Socket:
			sockets++
		case !found:
			report(fmt.Sprintf("%s is in the container but not in the archive", path))
		default:
			if diff := cmp.Diff(live[path], kept); diff != "" {
				report(fmt.Sprintf("%s differs (-container +archive):\n%s", path, diff))
			}
		}
	}
	for path := range archived {
		if _, found := live[path]; !found {
			report(fmt.Sprintf("%s is in the archive but not in the container", path))
		}
	}
	tb.Logf("%d entries compared, %d differ, %d sockets left out", len(live), differences, sockets)
}
