//go:build integration

package integration

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// memoryVictim is a pod with files in every place that goes with it.
func memoryVictim(tb testing.TB) *corev1.Pod {
	tb.Helper()
	container := idle("only")
	container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "memory", MountPath: "/memory"}}
	pod := newPod(suite.namespace(tb), victimName, container)
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
	}
	return pod
}

// plantEverywhere leaves a mark in each of those places, and a process whose program has no name any more.
const plantEverywhere = `set -e
for folder in /dev/shm /memory /data /root; do echo "planted in $folder" > $folder/plant; done
echo "planted in the log" > /proc/1/fd/1
cp /bin/busybox /tmp/sleep
/tmp/sleep 99999 >/dev/null 2>&1 </dev/null &
sleep 1
rm /tmp/sleep`

func TestCaptureHoldsWhatIsLostWithThePod(t *testing.T) {
	s := suite.stagePod(t, memoryVictim(t))
	suite.strikeAfter(t, s)
	suite.exec(t, s, victimName, "only", "sh", "-c", plantEverywhere)
	suite.detect(t, s)
	suite.await(t, s, v1alpha1.ConditionUploaded, captureTime)
	snapshot := suite.responses(t, s)[v1alpha1.StepSnapshot]
	if snapshot.Status.Phase != v1alpha1.ResponseSucceeded {
		t.Errorf("filesystem-snapshot is %q with gaps %+v", snapshot.Status.Phase, snapshot.Status.Gaps)
	}
	bucket := snapshot.Spec.Action.FilesystemSnapshot.Destination.Bucket
	demandOrder(t, snapshot)

	state := string(unzstd(t, download(t, bucket, only(t, snapshot, v1alpha1.ArtifactVolatileState))))
	if !strings.Contains(state, `"kind":"trailer"`) || !strings.Contains(state, "99999") || !strings.Contains(state, "/tmp/sleep") {
		t.Errorf("the volatile state has no trailer or not the planted process:\n%.2000s", state)
	}
	program := files(t, download(t, bucket, only(t, snapshot, v1alpha1.ArtifactProcessFiles)))
	if len(program) < 2 || !slices.ContainsFunc(values(program), func(content []byte) bool { return bytes.HasPrefix(content, []byte("\x7fELF")) }) {
		t.Errorf("the deleted program is not among %d files of processes", len(program))
	}
	for kind, want := range map[v1alpha1.ArtifactKind]string{
		v1alpha1.ArtifactVolume: "planted in /data\n", v1alpha1.ArtifactUpperLayer: "planted in /root\n", v1alpha1.ArtifactLogs: "planted in the log",
	} {
		found := false
		for _, artifact := range ofKind(snapshot, kind) {
			for _, content := range files(t, download(t, bucket, artifact)) {
				found = found || bytes.Contains(content, []byte(want))
			}
		}
		if !found {
			t.Errorf("%q is in no artifact of kind %s", want, kind)
		}
	}
	var memory []string
	for _, artifact := range ofKind(snapshot, v1alpha1.ArtifactMemoryFiles) {
		memory = append(memory, string(files(t, download(t, bucket, artifact))["plant"]))
	}
	for _, want := range []string{"planted in /dev/shm\n", "planted in /memory\n"} {
		if !slices.Contains(memory, want) {
			t.Errorf("%q is in no archive of memory: %q", want, memory)
		}
	}
	described := string(unzstd(t, download(t, bucket, only(t, snapshot, v1alpha1.ArtifactPodDescription))))
	if !strings.Contains(described, `"diffIds"`) || !strings.Contains(described, `"kind":"trailer"`) {
		t.Errorf("the description lacks the image or its trailer:\n%.2000s", described)
	}
	for _, artifact := range snapshot.Status.Artifacts {
		if artifact.MerkleRoot != "" {
			checkIndex(t, bucket, artifact)
		}
	}
	if err := suite.release(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if left, err := onNode(t.Context(), s.victim.Spec.NodeName, "sh", "-c", "grep -c ugallu-forensics/memory/"+string(s.victim.UID)+" /proc/mounts || true"); err != nil || strings.TrimSpace(left) != "0" {
		t.Errorf("%s mounts of the pod's memory are left (%v)", strings.TrimSpace(left), err)
	}
}

// demandOrder demands that what is lost first was stored first.
func demandOrder(t *testing.T, snapshot v1alpha1.EventResponse) {
	t.Helper()
	order := []v1alpha1.ArtifactKind{
		v1alpha1.ArtifactDroppedFlows, v1alpha1.ArtifactVolatileState, v1alpha1.ArtifactProcessFiles, v1alpha1.ArtifactProcessMemory,
		v1alpha1.ArtifactMemoryFiles, v1alpha1.ArtifactUpperLayer, v1alpha1.ArtifactLogs, v1alpha1.ArtifactVolume,
		v1alpha1.ArtifactPodDescription, v1alpha1.ArtifactRootFilesystem,
	}
	before := map[v1alpha1.ArtifactKind]string{}
	for _, artifact := range snapshot.Status.Artifacts {
		for _, later := range order[slices.Index(order, artifact.Kind)+1:] {
			// Logs and volumes are equally volatile.
			if name, ok := before[later]; ok && later != v1alpha1.ArtifactVolume {
				t.Errorf("%s was stored after %s", artifact.Name, name)
			}
		}
		before[artifact.Kind] = artifact.Name
		if artifact.Kind != v1alpha1.ArtifactDroppedFlows && artifact.Kind != v1alpha1.ArtifactPodDescription && !artifact.FrozenThroughout {
			t.Errorf("%s was not frozen throughout", artifact.Name)
		}
	}
}

// checkIndex demands that the index gives the Merkle root, and that the timeline is one that mactime reads.
func checkIndex(t *testing.T, bucket string, artifact v1alpha1.Artifact) {
	t.Helper()
	if artifact.Index == nil || artifact.Timeline == nil {
		t.Errorf("%s has no index or no timeline", artifact.Name)
		return
	}
	store := suite.analyst(t)
	reader := evidence.NewIndexReader(bytes.NewReader(unzstd(t, store.fetch(t, bucket, *artifact.Index))))
	for {
		_, err := reader.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("index of %s: %v", artifact.Name, err)
		}
	}
	if reader.Root() != artifact.MerkleRoot || int64(reader.Size()) != artifact.IndexLines { // #nosec G115 -- counted
		t.Errorf("%s: the index has %d lines with the root %s, claimed are %d and %s", artifact.Name,
			reader.Size(), reader.Root(), artifact.IndexLines, artifact.MerkleRoot)
	}
	timeline := unzstd(t, store.fetch(t, bucket, *artifact.Timeline))
	if len(timeline) == 0 {
		return
	}
	read := exec.CommandContext(t.Context(), "mactime", "-d", "-y", "-z", "UTC")
	read.Stdin = bytes.NewReader(timeline)
	out, err := read.Output()
	if err != nil || bytes.Count(out, []byte("\n")) < bytes.Count(timeline, []byte("\n")) {
		t.Errorf("%s: mactime made %d lines of %d (%v)", artifact.Name, bytes.Count(out, []byte("\n")), bytes.Count(timeline, []byte("\n")), err)
	}
}

func ofKind(response v1alpha1.EventResponse, kind v1alpha1.ArtifactKind) []v1alpha1.Artifact {
	return slices.DeleteFunc(slices.Clone(response.Status.Artifacts), func(a v1alpha1.Artifact) bool { return a.Kind != kind })
}

func only(tb testing.TB, response v1alpha1.EventResponse, kind v1alpha1.ArtifactKind) v1alpha1.Artifact {
	tb.Helper()
	found := ofKind(response, kind)
	if len(found) != 1 {
		tb.Fatalf("%d artifacts of kind %s, gaps %+v", len(found), kind, response.Status.Gaps)
	}
	return found[0]
}

// download concatenates the segments, each checked as it is read.
func download(tb testing.TB, bucket string, artifact v1alpha1.Artifact) []byte {
	tb.Helper()
	var stream []byte
	for _, segment := range artifact.Segments {
		stream = append(stream, suite.analyst(tb).fetch(tb, bucket, segment)...)
	}
	if evidence.Digest(stream) != artifact.SHA256 {
		tb.Errorf("%s is not its segments", artifact.Name)
	}
	return stream
}

func unzstd(tb testing.TB, data []byte) []byte {
	tb.Helper()
	reader, err := zstd.NewReader(bytes.NewReader(data))
	if err != nil {
		tb.Fatal(err)
	}
	defer reader.Close()
	plain, err := io.ReadAll(reader)
	if err != nil {
		tb.Fatal(err)
	}
	return plain
}

// files are the regular files of a compressed archive by name.
func files(tb testing.TB, data []byte) map[string][]byte {
	tb.Helper()
	found := map[string][]byte{}
	reader := tar.NewReader(bytes.NewReader(unzstd(tb, data)))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			tb.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		content, err := io.ReadAll(reader)
		if err != nil {
			tb.Fatal(err)
		}
		found[path.Clean(header.Name)] = content
	}
}

func values(files map[string][]byte) [][]byte {
	var all [][]byte
	for _, content := range files {
		all = append(all, content)
	}
	return all
}
