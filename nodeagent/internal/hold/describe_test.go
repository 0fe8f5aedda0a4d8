package hold_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/google/go-cmp/cmp"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/nodeagent/internal/hold"
)

const reference = "registry.example.com/shop/web:1"

// blob stores a blob and returns what names it. Its children are kept by it.
func (r *runtime) blob(t *testing.T, mediaType string, data []byte, children ...images.Image) images.Image {
	t.Helper()
	labels := map[string]string{"containerd.io/gc.root": "test"}
	for i, child := range children {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.%d", i)] = child.Target.Digest.String()
	}
	var image images.Image
	must(t, json.Unmarshal([]byte(descriptor(mediaType, data)), &image.Target))
	must(t, content.WriteBlob(t.Context(), r.ContentStore(), image.Target.Digest.String(), bytes.NewReader(data), image.Target,
		content.WithLabels(labels)))
	return image
}

func descriptor(mediaType string, data []byte) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":%d}`, mediaType, evidence.Digest(data), len(data))
}

func layer(t *testing.T, name string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(name))}))
	_, err := w.Write([]byte(name))
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

// pulled is an image with an index, two layers and what unpacking made of it.
type pulled struct {
	config, manifest, index []byte
	layers                  [][]byte
}

// pull stores an image, unpacks it, and makes a container of it.
func (r *runtime) pull(t *testing.T, id string) pulled {
	t.Helper()
	const oci = "application/vnd.oci.image."
	p := pulled{layers: [][]byte{layer(t, "one"), layer(t, "two")}}
	p.config = fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s","sha256:%s"]}}`,
		goruntime.GOARCH, evidence.Digest(p.layers[0]), evidence.Digest(p.layers[1]))
	p.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%smanifest.v1+json","config":%s,"layers":[%s,%s]}`,
		oci, descriptor(oci+"config.v1+json", p.config), descriptor(oci+"layer.v1.tar", p.layers[0]), descriptor(oci+"layer.v1.tar", p.layers[1]))
	other := []byte(`{"schemaVersion":2,"of":"another platform, never pulled"}`)
	p.index = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%sindex.v1+json","manifests":[%s,%s]}`, oci,
		strings.TrimSuffix(descriptor(oci+"manifest.v1+json", other), "}")+`,"platform":{"os":"linux","architecture":"s390x"}}`,
		strings.TrimSuffix(descriptor(oci+"manifest.v1+json", p.manifest), "}")+fmt.Sprintf(`,"platform":{"os":"linux","architecture":%q}}`, goruntime.GOARCH))
	one := r.blob(t, oci+"layer.v1.tar", p.layers[0])
	two := r.blob(t, oci+"layer.v1.tar", p.layers[1])
	config := r.blob(t, oci+"config.v1+json", p.config)
	manifest := r.blob(t, oci+"manifest.v1+json", p.manifest, config, one, two)
	image := r.blob(t, oci+"index.v1+json", p.index, manifest)
	image.Name = reference
	stored, err := r.ImageService().Create(t.Context(), image)
	must(t, err)
	unpacked := containerd.NewImage(r.Client, stored)
	must(t, unpacked.Unpack(t.Context(), snapshotter))
	chain := evidence.Digest(fmt.Appendf(nil, "sha256:%s sha256:%s", evidence.Digest(p.layers[0]), evidence.Digest(p.layers[1])))
	_, err = r.ContainerService().Create(t.Context(), containers.Container{
		ID: id, Image: reference, Snapshotter: snapshotter, SnapshotKey: id, Labels: map[string]string{"app": "web"},
		Runtime: containers.RuntimeInfo{Name: "io.containerd.runc.v2"}, Spec: spec(`{"process":{"args":["run"]}}`),
	})
	must(t, err)
	_, err = r.SnapshotService(snapshotter).Prepare(t.Context(), id, "sha256:"+chain)
	must(t, err)
	return p
}

type spec string

func (spec) GetTypeUrl() string { return emptySpec{}.GetTypeUrl() }

func (s spec) GetValue() []byte { return []byte(s) }

func TestDescribeTellsTheImageFromIndexToLayers(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		p := r.pull(t, "web")
		before, err := h.Describe(t.Context(), incident, "web")
		must(t, err)
		if len(before.Missing) != 0 || before.Image != reference || before.Labels["app"] != "web" ||
			before.Runtime != "io.containerd.runc.v2" || before.Snapshotter != snapshotter || string(before.Spec) != `{"process":{"args":["run"]}}` {
			t.Errorf("description: %+v", before)
		}
		got := []string{string(before.Target.Content), string(before.Manifest.Content), string(before.Config.Content)}
		if diff := cmp.Diff([]string{string(p.index), string(p.manifest), string(p.config)}, got); diff != "" {
			t.Errorf("blobs (-want +got):\n%s", diff)
		}
		if before.Config.Digest != "sha256:"+evidence.Digest(p.config) {
			t.Errorf("image id %s", before.Config.Digest)
		}
		if len(before.Layers) != 2 || !before.Layers[0].Present || before.Layers[1].Digest != "sha256:"+evidence.Digest(p.layers[1]) {
			t.Errorf("layers: %+v", before.Layers)
		}
		// The chain ends in the snapshot that containerd unpacked under the chain id.
		if len(before.Snapshots) != 3 || before.Snapshots[0].Name != "web" || before.Snapshots[0].Kind != "Active" ||
			before.Snapshots[1].Name != before.ChainID || before.Snapshots[2].Name != before.DiffIDs[0] {
			t.Errorf("chain id %s, snapshots %+v", before.ChainID, before.Snapshots)
		}
		_, err = h.Hold(t.Context(), incident, "web")
		must(t, err)
		after, err := h.Describe(t.Context(), incident, "web")
		must(t, err)
		if len(after.Snapshots) != 3 || after.Snapshots[0].Name != "evidence-"+incident+"-web" || after.Snapshots[0].Kind != "Committed" {
			t.Errorf("snapshots when held: %+v", after.Snapshots)
		}
	})
}

func TestDescribeNamesWhatWasDiscarded(t *testing.T) {
	everywhere(t, func(t *testing.T, r *runtime, h *hold.Holder) {
		p := r.pull(t, "web")
		_, err := h.Hold(t.Context(), incident, "web")
		must(t, err)
		discard := func(data []byte) {
			var image images.Image
			must(t, json.Unmarshal([]byte(descriptor("", data)), &image.Target))
			must(t, r.ContentStore().Delete(t.Context(), image.Target.Digest))
		}
		discard(p.layers[0])
		got, err := h.Describe(t.Context(), incident, "web")
		must(t, err)
		if len(got.Missing) != 0 || got.Layers[0].Present || !got.Layers[1].Present {
			t.Errorf("without a layer: %v, %+v", got.Missing, got.Layers)
		}
		discard(p.config)
		got, err = h.Describe(t.Context(), incident, "web")
		must(t, err)
		if len(got.Missing) == 0 || got.ChainID != "" {
			t.Errorf("without the configuration: %v, %+v", got.Missing, got)
		}
		must(t, r.ImageService().Delete(t.Context(), reference))
		got, err = h.Describe(t.Context(), incident, "web")
		must(t, err)
		if len(got.Missing) != 1 || got.Target != nil || len(got.Snapshots) != 3 {
			t.Errorf("without the image: %+v", got)
		}
		r.remove(t, "web")
		got, err = h.Describe(t.Context(), incident, "web")
		must(t, err)
		if len(got.Missing) != 1 || got.Image != "" || len(got.Snapshots) != 3 {
			t.Errorf("without the container: %+v", got)
		}
		if _, err := h.Describe(t.Context(), incident, "nobody"); !errors.Is(err, hold.ErrContainerNotFound) {
			t.Errorf("nobody: %v", err)
		}
	})
}
