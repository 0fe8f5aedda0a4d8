package podfiles_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/testneeds"
	"ugallu.io/forensics/nodeagent/internal/podfiles"
)

// describe returns the stream, its records and the counts of its gaps.
func describe(t *testing.T, found podfiles.Found, options podfiles.DescribeOptions) (string, []evidence.PodRecord, []evidence.Gap) {
	t.Helper()
	var out bytes.Buffer
	gaps, err := podfiles.Describe(t.Context(), &out, found, options)
	must(t, err)
	var records []evidence.PodRecord
	lines := bufio.NewScanner(bytes.NewReader(out.Bytes()))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var record evidence.PodRecord
		decoder := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		decoder.DisallowUnknownFields()
		must(t, decoder.Decode(&record))
		records = append(records, record)
	}
	must(t, lines.Err())
	return out.String(), records, gaps
}

func files(records []evidence.PodRecord) map[string]evidence.PodFile {
	found := map[string]evidence.PodFile{}
	for _, record := range records {
		if record.Kind == evidence.PodRecordFile {
			found[record.File.Volume+":"+string(record.File.Path)] = *record.File
		}
	}
	return found
}

func TestSecretsAreDescribedAndNeverWritten(t *testing.T) {
	n := newNode(t)
	token := n.memory(t, "secret", "token")
	must(t, os.Mkdir(token+"/..2026", 0o755))
	must(t, put(token+"/..2026/key", secret))
	must(t, os.Symlink("..2026", token+"/..data"))
	must(t, os.Symlink("..data/key", token+"/key"))
	must(t, unix.Mkfifo(token+"/fifo", 0o600))
	settings := n.volume(t, "configmap", "settings")
	must(t, put(settings+"/level", secret))
	n.pod.Volumes = []corev1.Volume{
		{Name: "token", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "token"}}},
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
	}
	found := n.find(t)
	for hashed, options := range map[bool]podfiles.DescribeOptions{
		true: {}, false: {WithoutSecretHashes: true},
	} {
		stream, records, _ := describe(t, found, options)
		if strings.Contains(stream, secret) {
			t.Error("the Secret's content is in the record")
		}
		got := files(records)
		key := got["token:..2026/key"]
		if key.Size != int64(len(secret)) || key.Mode != 0o600 || key.Type != evidence.EntryFile || key.ModTime == "" {
			t.Errorf("key: %+v", key)
		}
		want := evidence.Digest([]byte(secret))
		if got["settings:level"].SHA256 != want || (key.SHA256 == want) != hashed || (key.SHA256 == "") == hashed {
			t.Errorf("hashed %t: Secret %q, configMap %q", hashed, key.SHA256, got["settings:level"].SHA256)
		}
		if got["token:..data"].Link != "..2026" || got["token:fifo"].Type != evidence.EntryFIFO {
			t.Errorf("link %+v, fifo %+v", got["token:..data"], got["token:fifo"])
		}
		if records[0].Header.SecretsHashed != hashed {
			t.Errorf("header: %+v", records[0].Header)
		}
	}
}

func TestWhatIsMountedInsideOfAVolumeIsNamedAndNotAsked(t *testing.T) {
	_, err := os.Stat("/dev/fuse")
	testneeds.That(t, err == nil, "no /dev/fuse")
	n := newNode(t)
	n.pod.Volumes = []corev1.Volume{
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}},
	}
	settings := n.volume(t, "configmap", "settings")
	must(t, os.Mkdir(settings+"/folder", 0o755))
	must(t, put(settings+"/file", "covered"))
	must(t, fuse(settings+"/folder"))
	t.Cleanup(func() { must(t, unix.Unmount(settings+"/folder", unix.MNT_DETACH)) })
	must(t, bind(settings+"/file", settings+"/file"))
	t.Cleanup(func() { must(t, unix.Unmount(settings+"/file", unix.MNT_DETACH)) })
	must(t, put(settings+"/level", "debug"))
	_, records, gaps := describe(t, n.find(t), podfiles.DescribeOptions{})
	want := []evidence.Gap{{Reason: podfiles.GapMountPoint, Message: gaps[0].Message, Count: 2}}
	if diff := cmp.Diff(want, gaps); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	got := files(records)
	if _, is := got["settings:folder"]; is || got["settings:level"].SHA256 == "" {
		t.Errorf("files %+v", got)
	}
}

func TestHostsAreRecordedAsFarAsTheyGo(t *testing.T) {
	const path = "/pods/" + uid + "/etc-hosts"
	tests := map[string]struct {
		make   func(t *testing.T, path string)
		reason string
	}{
		"a file":      {func(t *testing.T, path string) { must(t, put(path, "1.2.3.4 c2\n")) }, ""},
		"a FIFO":      {func(t *testing.T, path string) { must(t, unix.Mkfifo(path, 0o600)) }, podfiles.GapUnreadable},
		"a link":      {func(t *testing.T, path string) { must(t, os.Symlink("/etc/shadow", path)) }, podfiles.GapUnreadable},
		"a large one": {func(t *testing.T, path string) { must(t, put(path, "")); must(t, os.Truncate(path, 1<<40)) }, podfiles.GapTruncated},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.pod.Volumes = []corev1.Volume{}
			must(t, os.Remove(n.roots.Kubelet+path))
			test.make(t, n.roots.Kubelet+path)
			_, records, gaps := describe(t, n.find(t), podfiles.DescribeOptions{})
			switch {
			case test.reason == "" && len(gaps) == 0:
				if got := files(records)[":"+n.roots.Kubelet+path]; string(got.Content) != "1.2.3.4 c2\n" {
					t.Errorf("recorded %q", got.Content)
				}
			case len(gaps) != 1 || gaps[0].Reason != test.reason:
				t.Errorf("gaps: %v", gaps)
			}
		})
	}
}

func TestTheStreamSaysWhereItEnds(t *testing.T) {
	n := newNode(t)
	at := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	_, records, gaps := describe(t, n.find(t), podfiles.DescribeOptions{
		At: at, Containers: []evidence.ContainerDescription{{ID: "c1", Missing: []string{"manifest sha256:1"}}},
	})
	last := records[len(records)-1]
	if last.Kind != evidence.PodRecordTrailer || last.Trailer.Records != int64(len(records)) || last.Trailer.Gaps != 2 {
		t.Errorf("trailer: %+v of %d records", last.Trailer, len(records))
	}
	want := &evidence.PodFilesHeader{Version: "v1", Namespace: "shop", Name: "web", UID: uid, At: at, SecretsHashed: true}
	if diff := cmp.Diff(want, records[0].Header); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if len(gaps) != 2 || gaps[0].Reason != podfiles.GapDescription || gaps[1].Reason != podfiles.GapVolumesUnknown {
		t.Errorf("gaps: %v", gaps)
	}
}

func TestEnvironmentIsRedactedOnRequest(t *testing.T) {
	n := newNode(t)
	container := evidence.ContainerDescription{
		ID:     "c1",
		Spec:   json.RawMessage(`{"process":{"env":["KEY=` + secret + `","EMPTY=","BARE"],"uid":9007199254740993}}`),
		Config: &evidence.ContainerBlob{Digest: "sha256:1", Content: []byte(`{"config":{"Env":["KEY=` + secret + `"]}}`)},
	}
	options := podfiles.DescribeOptions{Containers: []evidence.ContainerDescription{container}, RedactEnvironment: true}
	stream, records, _ := describe(t, n.find(t), options)
	if strings.Contains(stream, secret) {
		t.Error("the value is in the record")
	}
	for _, record := range records {
		if record.Kind != evidence.PodRecordContainer {
			continue
		}
		want := `{"process":{"env":["KEY=sha256:` + evidence.Digest([]byte(secret)) + `","EMPTY=sha256:` + evidence.Digest(nil) +
			`","BARE=sha256:` + evidence.Digest(nil) + `"],"uid":9007199254740993}}`
		if got := string(record.Container.Spec); got != want || record.Container.Config.Content != nil {
			t.Errorf("spec %s\nwant %s, config %s", got, want, record.Container.Config.Content)
		}
	}
	if container.Config.Content == nil {
		t.Error("the caller's description was changed")
	}
}
