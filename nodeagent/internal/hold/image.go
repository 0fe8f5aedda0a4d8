package hold

import (
	"context"
	"encoding/json"
	"fmt"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"

	"ugallu.io/forensics/api/evidence"
)

// maxBlob bounds a manifest or an image configuration; registries refuse manifests above 4 MiB.
const maxBlob = 8 << 20

// imageDescriber describes one image by its blobs. Each blob is passed on as an image of its own.
type imageDescriber struct {
	store content.Store
	out   *evidence.ContainerDescription
}

// describe reads the blob that the reference names, the manifest of this platform, and the configuration.
func (d *imageDescriber) describe(ctx context.Context, image containerd.Image) (err error) {
	manifest := image.Metadata()
	if d.out.Target, err = d.blob(ctx, "target", manifest); err != nil {
		return err
	}
	if images.IsIndexType(manifest.Target.MediaType) {
		chosen, err := d.platform(ctx, image)
		if err != nil || chosen == nil {
			return err
		}
		manifest = *chosen
		if d.out.Manifest, err = d.blob(ctx, "manifest", manifest); err != nil {
			return err
		}
	}
	return d.manifest(ctx, manifest)
}

// platform finds the manifest of this platform in an index: it is the one that names the configuration that containerd
// chooses. It is nil when that is not there.
func (d *imageDescriber) platform(ctx context.Context, image containerd.Image) (*images.Image, error) {
	config, err := image.Config(ctx)
	if err != nil {
		return nil, d.lacks("manifest of this platform", err)
	}
	manifests, err := images.Children(ctx, d.store, image.Target())
	if err != nil {
		return nil, d.lacks("manifests of the index", err)
	}
	for _, manifest := range manifests {
		if !images.IsManifestType(manifest.MediaType) {
			continue
		}
		children, err := images.Children(ctx, d.store, manifest)
		if errdefs.IsNotFound(err) {
			continue // of another platform: the chosen one has just been read
		}
		if err != nil {
			return nil, fmt.Errorf("read manifest %s: %w", manifest.Digest, err)
		}
		if len(children) > 0 && children[0].Digest == config.Digest {
			return &images.Image{Target: manifest}, nil
		}
	}
	return nil, d.lacks("manifest of this platform", fmt.Errorf("none names configuration %s: %w", config.Digest, errdefs.ErrNotFound))
}

// manifest takes configuration and layers from a manifest, in which they come in this order.
func (d *imageDescriber) manifest(ctx context.Context, manifest images.Image) error {
	children, err := images.Children(ctx, d.store, manifest.Target)
	if err != nil {
		return d.lacks("manifest "+manifest.Target.Digest.String(), err)
	}
	if len(children) == 0 {
		return d.lacks("configuration", fmt.Errorf("%s is no manifest: %w", manifest.Target.MediaType, errdefs.ErrNotFound))
	}
	for _, layer := range children[1:] {
		_, err := d.store.Info(ctx, layer.Digest)
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("look up layer %s: %w", layer.Digest, err)
		}
		d.out.Layers = append(d.out.Layers, evidence.ContainerLayer{
			MediaType: layer.MediaType, Digest: layer.Digest.String(), Size: layer.Size, Present: err == nil,
		})
	}
	d.out.Config, err = d.blob(ctx, "configuration", images.Image{Target: children[0]})
	if err != nil || d.out.Config.Content == nil {
		return err // what is missing is named by now
	}
	d.config(d.out.Config)
	return nil
}

// config takes the diff ids from a configuration and computes the chain id.
func (d *imageDescriber) config(blob *evidence.ContainerBlob) {
	var config struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(blob.Content, &config); err != nil {
		d.out.Missing = append(d.out.Missing, fmt.Sprintf("configuration %s is not JSON: %v", blob.Digest, err))
		return
	}
	d.out.DiffIDs = config.RootFS.DiffIDs
	d.out.ChainID = chainID(d.out.DiffIDs)
}

// blob reads a blob and compares it with its digest. One that is not there, is too large or differs has no content, and is
// named.
func (d *imageDescriber) blob(ctx context.Context, what string, of images.Image) (*evidence.ContainerBlob, error) {
	target := of.Target
	blob := &evidence.ContainerBlob{MediaType: target.MediaType, Digest: target.Digest.String(), Size: target.Size}
	name := what + " " + blob.Digest
	if err := target.Digest.Validate(); err != nil {
		d.out.Missing = append(d.out.Missing, fmt.Sprintf("%s: %v", name, err))
		return blob, nil
	}
	info, err := d.store.Info(ctx, target.Digest)
	if err != nil {
		return blob, d.lacks(name, err)
	}
	blob.Size = info.Size
	if info.Size > maxBlob {
		d.out.Missing = append(d.out.Missing, fmt.Sprintf("%s: its %d bytes are more than %d", name, info.Size, maxBlob))
		return blob, nil
	}
	read, err := content.ReadBlob(ctx, d.store, target)
	if err != nil {
		return blob, d.lacks(name, err)
	}
	verifier := target.Digest.Verifier()
	if _, err := verifier.Write(read); err != nil {
		return blob, fmt.Errorf("hash %s: %w", name, err)
	}
	if !verifier.Verified() {
		d.out.Missing = append(d.out.Missing, name+": the content store holds something else under this digest")
		return blob, nil
	}
	blob.Content = read
	return blob, nil
}

// lacks names what is not there; other errors are returned.
func (d *imageDescriber) lacks(what string, err error) error {
	if !errdefs.IsNotFound(err) {
		return fmt.Errorf("read %s: %w", what, err)
	}
	d.out.Missing = append(d.out.Missing, fmt.Sprintf("%s: %v", what, err))
	return nil
}

// chainID is that of the OCI image specification: of one layer it is its diff id, of more it is the digest of the chain id
// of all but the last, a space, and the last diff id.
func chainID(diffIDs []string) string {
	chain := ""
	for i, diffID := range diffIDs {
		if i == 0 {
			chain = diffID
			continue
		}
		chain = "sha256:" + evidence.Digest([]byte(chain+" "+diffID))
	}
	return chain
}
