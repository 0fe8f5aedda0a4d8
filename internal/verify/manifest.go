package verify

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

func parseManifest(data []byte) (*evidence.Manifest, error) {
	var manifest evidence.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	return &manifest, nil
}

// onlyManifest is the key of the one manifest that lies below the incident. What does not have the digest that its name
// gives is none.
func (v *verification) onlyManifest(ctx context.Context) (string, error) {
	keys, err := v.list(ctx, "/manifest-")
	if err != nil {
		return "", err
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return !isManifest(key) || path.Dir(key) != v.prefix })
	if len(keys) > maxCandidates {
		return "", fmt.Errorf("no custody record below %s is proven, and %d objects have the name of a manifest: name one", v.prefix, len(keys))
	}
	var whole []string
	var unread error
	for _, key := range keys {
		data, err := read(ctx, v.source, evidence.StoredVersion{Key: key}, maxRecord)
		if isUnread(err) {
			unread = errors.Join(unread, err)
		}
		if err == nil && key == evidence.ManifestKey(v.prefix, evidence.Digest(data)) {
			whole = append(whole, key)
		}
	}
	if len(whole) != 1 {
		return "", errors.Join(fmt.Errorf("no custody record below %s is proven, and %d manifests are there: name one", v.prefix, len(whole)), unread)
	}
	return whole[0], nil
}

// checkManifest reads the manifest that the signed upload stored, and compares it with every statement about it.
func (v *verification) checkManifest(ctx context.Context) {
	stored := v.storedManifest()
	if stored == nil {
		ending := v.ending()
		if v.manifestAt != nil || (ending != nil && ending.event.spec.Type == typeCompleted) {
			v.report.add(LinkManifest, CheckAnnounced, v.together(refuse("no signed %s stored a manifest", stepUpload)), "")
			return
		}
		v.report.notChecked(LinkManifest, CheckForm, "the capture ended without a manifest")
		return
	}
	data, err := read(ctx, v.source, *stored, maxRecord)
	if err == nil {
		err = sameBytes(*stored, int64(len(data)), evidence.Digest(data))
	}
	if !v.report.add(LinkManifest, CheckDigest, err, "sha256 "+stored.SHA256) && data == nil {
		return
	}
	v.checkKept(ctx, LinkManifest, *stored, v.lockMode())
	manifest, err := v.manifestForm(stored.Key, data)
	if !v.report.add(LinkManifest, CheckForm, err, "") {
		return
	}
	v.manifest = manifest
	v.report.add(LinkManifest, CheckAnnounced, v.announcedError(stored), "")
	v.report.add(LinkManifest, CheckAgrees, v.agreesError(), fmt.Sprintf("%d artifacts", len(manifest.Artifacts)))
}

// storedManifest is the manifest as the signed upload names it.
func (v *verification) storedManifest() *evidence.StoredVersion {
	for _, l := range v.responsesOf(stepUpload) {
		for _, artifact := range l.response.Artifacts {
			if artifact.Kind == kindManifest && len(artifact.Segments) == 1 {
				stored := version(artifact.Segments[0])
				return &stored
			}
		}
	}
	return nil
}

func (v *verification) lockMode() string {
	if v.record == nil {
		return ""
	}
	return v.record.custody.LockMode
}

func (v *verification) manifestForm(key string, data []byte) (*evidence.Manifest, error) {
	if err := canonical(data); err != nil {
		return nil, err
	}
	if want := evidence.ManifestKey(v.prefix, evidence.Digest(data)); key != want {
		return nil, refuse("lies at %s, its content belongs to %s", key, want)
	}
	manifest, err := parseManifest(data)
	if err != nil {
		return nil, refuse("%v", err)
	}
	if manifest.Version != evidence.ManifestVersion {
		return nil, refuse("has version %q, this program knows %q", manifest.Version, evidence.ManifestVersion)
	}
	return manifest, nil
}

// announcedError compares the stored manifest with what the caller named and with what the Completed event announces.
func (v *verification) announcedError(stored *evidence.StoredVersion) error {
	if named := v.manifestAt; named != nil && (named.Key != stored.Key || (named.VersionID != "" && named.VersionID != stored.VersionID)) {
		return refuse("the signed upload stored %s version %s, not %s version %s", stored.Key, stored.VersionID, named.Key, named.VersionID)
	}
	ending := v.ending()
	if ending == nil || ending.event.spec.Type != typeCompleted {
		return v.together(refuse("no signed event announces it"))
	}
	told := ending.event.spec.Evidence
	if told == nil || told.SHA256 != stored.SHA256 || told.VersionID != stored.VersionID || told.Size != stored.Size ||
		!strings.HasSuffix(told.URL, "/"+stored.Key) {
		return refuse("event %s announces another manifest: %+v", ending.event.Event.Name, told)
	}
	return nil
}

// agreesError compares the manifest with the signed responses that it covers. What one response refutes is refused also
// where another could not be read.
func (v *verification) agreesError() error {
	covered := map[string]*response{}
	for _, l := range v.links {
		if l.response != nil {
			covered[l.response.Response.UID] = l.response
		}
	}
	signed := map[string]evidence.Artifact{}
	var missing error
	for _, summary := range v.manifest.Responses {
		r, ok := covered[summary.UID]
		if !ok {
			missing = refuse("no statement is about the response %s that it covers", summary.Name)
			continue
		}
		if err := v.summaryError(&summary, r); err != nil {
			return err
		}
		for _, artifact := range r.Artifacts {
			signed[artifact.Name] = artifact
		}
	}
	// What the upload stored beside the manifest, the cluster's own state, is listed in it as well.
	for _, l := range v.responsesOf(stepUpload) {
		for _, artifact := range l.response.Artifacts {
			if artifact.Kind != kindManifest {
				signed[artifact.Name] = artifact
			}
		}
	}
	if len(signed) != len(v.manifest.Artifacts) && missing == nil {
		missing = refuse("it lists %d artifacts, the statements %d", len(v.manifest.Artifacts), len(signed))
	}
	for _, artifact := range v.manifest.Artifacts {
		found, ok := signed[artifact.Name]
		if !ok {
			missing = cmp.Or(missing, refuse("no statement names its artifact %s", artifact.Name))
			continue
		}
		if err := sameArtifact(artifact, found); err != nil {
			return err
		}
	}
	return v.together(missing)
}

// summaryError compares what the manifest says of a response with its statement.
func (v *verification) summaryError(summary *evidence.ResponseSummary, r *response) error {
	if r.Response != summary.Reference || r.Step != summary.Step || r.outcome.Phase != summary.Phase ||
		r.outcome.CompletedAt == nil || !r.outcome.CompletedAt.Equal(summary.CompletedAt) {
		return refuse("it says of %s that it ended %s at %s, its statement does not", summary.Name, summary.Phase, summary.CompletedAt)
	}
	if r.Step == stepFreeze && !bytes.Equal(v.manifest.Containment, r.outcome.Containment) {
		return refuse("its containment is not that of the statement about %s", summary.Name)
	}
	return nil
}

// sameArtifact compares two descriptions of an artifact, apart from who asserts and who observed it: the manifest is
// made before the statement, and may not know yet.
func sameArtifact(told, signed evidence.Artifact) error {
	first, err := evidence.Canonical(bare(told))
	if err != nil {
		return refuse("artifact %s: %v", told.Name, err)
	}
	second, err := evidence.Canonical(bare(signed))
	if err != nil {
		return refuse("artifact %s: %v", told.Name, err)
	}
	if !bytes.Equal(first, second) {
		return refuse("it describes the artifact %s otherwise than the statement does", told.Name)
	}
	return nil
}

// bare is an artifact without the words of who vouches for it.
func bare(artifact evidence.Artifact) evidence.Artifact {
	artifact.Asserted = evidence.Asserted{SHA256: artifact.Asserted.SHA256}
	artifact.Observed = nil
	segments := make([]evidence.Segment, 0, len(artifact.Segments))
	for _, segment := range artifact.Segments {
		segment.ObservedSHA256 = ""
		segments = append(segments, segment)
	}
	artifact.Segments = segments
	artifact.Index, artifact.Timeline = bareSegment(artifact.Index), bareSegment(artifact.Timeline)
	return artifact
}

func bareSegment(segment *evidence.Segment) *evidence.Segment {
	if segment == nil {
		return nil
	}
	bare := *segment
	bare.ObservedSHA256 = ""
	return &bare
}
