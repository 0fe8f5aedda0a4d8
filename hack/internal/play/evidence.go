package play

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/internal/attest"
)

func (p *Play) fetch(ctx context.Context) (string, error) {
	if p.incident.Status.CompletionEvent == nil || p.incident.Status.Manifest == nil {
		return "", errors.New("the incident names no completion event or no manifest")
	}
	var completed v1alpha1.SecurityEvent
	if err := p.Get(ctx, client.ObjectKey{Name: p.incident.Status.CompletionEvent.Name}, &completed); err != nil {
		return "", fmt.Errorf("get the completion event: %w", err)
	}
	announced := completed.Spec.Evidence
	if announced == nil {
		return "", fmt.Errorf("event %s of type %s announces no evidence", completed.Name, completed.Spec.Type)
	}
	p.screen.note("%s: %s", completed.Name, announced.URL)
	opened, err := p.analyst(ctx)
	if err != nil {
		return "", err
	}
	bucket := p.incident.Spec.Snapshot.Destination.Bucket
	raw, err := opened.read(ctx, bucket, *p.incident.Status.Manifest)
	if err != nil {
		return "", err
	}
	var manifest evidence.Manifest
	if err := json.Unmarshal(raw, &manifest); err != nil {
		return "", fmt.Errorf("parse the manifest: %w", err)
	}
	digest := evidence.Digest(raw)
	want := "s3://" + bucket + "/" + evidence.ManifestKey(v1alpha1.EvidencePrefix(p.incident.Name), digest)
	var claims checks
	claims.demand(announced.URL == want, "the evidence url is %s, the manifest is %s", announced.URL, want)
	claims.demand(manifest.Pod.UID == string(p.pod.UID), "the manifest is about pod %s", manifest.Pod.UID)
	for _, artifact := range manifest.Artifacts {
		claims.demand(artifact.Observed != nil || artifact.Kind == string(v1alpha1.ArtifactClusterState), "artifact %s was not read back", artifact.Name)
		p.screen.note("%s: %d bytes in %d segments, %d entries", artifact.Name, artifact.Size, len(artifact.Segments), artifact.Entries)
	}
	for _, gap := range manifest.Gaps {
		p.screen.note("gap %s ×%d: %s", gap.Reason, gap.Count, gap.Message)
	}
	until := p.incident.Status.Manifest.RetainUntil.UTC().Format("2006-01-02")
	return fmt.Sprintf("manifest %s… read back, locked COMPLIANCE until %s", digest[:12], until), claims.err()
}

func (p *Play) archive(ctx context.Context) (string, error) {
	snapshot, err := p.response(ctx, v1alpha1.StepSnapshot)
	if err != nil {
		return "", err
	}
	for _, artifact := range snapshot.Status.Artifacts {
		if artifact.Kind != v1alpha1.ArtifactRootFilesystem || artifact.MediaType != evidence.MediaTypeTarZstd {
			continue
		}
		stream, err := p.download(ctx, artifact)
		if err != nil {
			return "", err
		}
		p.screen.note("%s: sha256 %s", artifact.Name, artifact.SHA256)
		entries, content, err := search(stream, plantedFile)
		if err != nil {
			return "", fmt.Errorf("read archive %s: %w", artifact.Name, err)
		}
		if content == nil {
			continue
		}
		if string(content) != plantedText {
			return "", fmt.Errorf("/%s in the archive holds %q", plantedFile, content)
		}
		return fmt.Sprintf("%d entries in %.1f MB, /%s found with its content", entries, float64(artifact.Size)/1e6, plantedFile), nil
	}
	return "", fmt.Errorf("/%s is in none of %d artifacts", plantedFile, len(snapshot.Status.Artifacts))
}

// download concatenates an artifact's segments; each is checked, and the whole stream.
func (p *Play) download(ctx context.Context, artifact v1alpha1.Artifact) (*bytes.Buffer, error) {
	opened, err := p.analyst(ctx)
	if err != nil {
		return nil, err
	}
	var stream bytes.Buffer
	for _, segment := range artifact.Segments {
		data, err := opened.read(ctx, p.incident.Spec.Snapshot.Destination.Bucket, segment)
		if err != nil {
			return nil, err
		}
		stream.Write(data)
	}
	if digest := evidence.Digest(stream.Bytes()); digest != artifact.SHA256 {
		return nil, fmt.Errorf("artifact %s has sha256 %s, claimed is %s", artifact.Name, digest, artifact.SHA256)
	}
	return &stream, nil
}

// search reads a whole tar.zst and returns the number of entries and the content of one file, nil when it is not there.
func search(stream io.Reader, name string) (entries int, content []byte, err error) {
	plain, err := zstd.NewReader(stream)
	if err != nil {
		return 0, nil, fmt.Errorf("open zstd: %w", err)
	}
	defer plain.Close()
	for reader := tar.NewReader(plain); ; entries++ {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return entries, content, nil
		}
		if err != nil {
			return entries, nil, fmt.Errorf("entry %d: %w", entries, err)
		}
		if strings.TrimPrefix(path.Clean("/"+header.Name), "/") == name {
			if content, err = io.ReadAll(reader); err != nil {
				return entries, nil, fmt.Errorf("content of %s: %w", header.Name, err)
			}
		}
	}
}

// bundles verifies every sealed bundle with nothing but the published trusted root.
func (p *Play) bundles(ctx context.Context) (string, error) {
	trust, err := p.trust(ctx)
	if err != nil {
		return "", err
	}
	responses, err := p.responses(ctx)
	if err != nil {
		return "", err
	}
	uids := []string{string(p.event.UID), p.incident.Status.CompletionEvent.UID}
	for _, response := range responses {
		uids = append(uids, string(response.UID))
	}
	for _, uid := range uids {
		if err := p.verify(ctx, trust, uid); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d bundles: signature, log entry and timestamp", len(uids)), nil
}

func (p *Play) trust(ctx context.Context) (*attest.Trust, error) {
	var published corev1.ConfigMap
	key := client.ObjectKey{Namespace: v1alpha1.NamespaceSystem, Name: "ugallu-trusted-root"}
	if err := p.Get(ctx, key, &published); err != nil {
		return nil, fmt.Errorf("get the trusted root: %w", err)
	}
	trust, err := attest.ParseTrust(published.Data)
	if err != nil {
		return nil, fmt.Errorf("load the trusted root: %w", err)
	}
	return trust, nil
}

// verify reads the bundle of one object from the store and checks it and its claims.
func (p *Play) verify(ctx context.Context, trust *attest.Trust, uid string) error {
	var bundle v1alpha1.AttestationBundle
	name := v1alpha1.BundleName(uid)
	if err := p.Get(ctx, client.ObjectKey{Name: name}, &bundle); err != nil {
		return fmt.Errorf("get bundle %s: %w", name, err)
	}
	if bundle.Status.Object == nil {
		return fmt.Errorf("bundle %s of %s is %q and not stored", name, bundle.Spec.AttestedFor.Name, bundle.Status.Phase)
	}
	opened, err := p.analyst(ctx)
	if err != nil {
		return err
	}
	raw, err := opened.read(ctx, p.incident.Spec.Snapshot.Destination.Bucket, *bundle.Status.Object)
	if err != nil {
		return err
	}
	verified, err := trust.Verify(raw)
	if err != nil {
		return fmt.Errorf("verify the bundle of %s: %w", bundle.Spec.AttestedFor.Name, err)
	}
	if digest := evidence.Digest(verified.Payload); digest != bundle.Status.StatementDigest {
		return fmt.Errorf("the statement about %s has digest %s, recorded is %s", bundle.Spec.AttestedFor.Name, digest, bundle.Status.StatementDigest)
	}
	p.screen.note("%s: signed by %s, log index %d, %s", bundle.Spec.AttestedFor.Name, verified.Signer, verified.LogIndex,
		verified.Timestamp.UTC().Format("2006-01-02T15:04:05Z"))
	return nil
}
