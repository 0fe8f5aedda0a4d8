package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"ugallu.io/forensics/api/evidence"
)

// checkObjects reads every object that a statement or the record names, each once.
func (v *verification) checkObjects(ctx context.Context) {
	v.name()
	if v.record != nil {
		v.report.add(v.record.link, CheckListed, v.listError(), fmt.Sprintf("%d objects", len(v.record.custody.Objects)))
	}
	read := map[place]bool{} // a release repeats what its freeze attached
	for _, l := range v.links {
		if l.response == nil {
			continue
		}
		if len(l.response.Artifacts)+len(l.response.Attachments) > 0 {
			v.report.add(l.name, CheckReadBack, readBackError(l.response), "")
		}
		for i := range l.response.Artifacts {
			if !v.isManifest(l, &l.response.Artifacts[i]) {
				v.checkArtifact(ctx, &l.response.Artifacts[i])
			}
		}
		for _, attachment := range l.response.Attachments {
			at := place{attachment.Key, attachment.VersionID}
			if !read[at] {
				v.checkObject(ctx, "object "+attachment.Key, attachment)
			}
			read[at] = true
		}
	}
	v.checkUnnamed(ctx)
}

// isManifest says whether an artifact is the one object that checkManifest read: what calls itself a manifest elsewhere is
// checked like everything else.
func (v *verification) isManifest(l *link, artifact *evidence.Artifact) bool {
	stored := v.storedManifest()
	return artifact.Kind == kindManifest && l.response.Step == stepUpload && stored != nil &&
		len(artifact.Segments) == 1 && version(artifact.Segments[0]) == *stored
}

// name notes every object that statements name.
func (v *verification) name() {
	note := func(segments ...evidence.Segment) {
		for _, segment := range segments {
			v.listed[place{segment.Key, segment.VersionID}] = version(segment)
		}
	}
	for _, l := range v.links {
		if l.response == nil {
			continue
		}
		for _, artifact := range l.response.Artifacts {
			note(artifact.Segments...)
			note(companions(&artifact)...)
		}
		note(l.response.Attachments...)
	}
}

// companions are the objects beside an artifact's own.
func companions(artifact *evidence.Artifact) []evidence.Segment {
	var found []evidence.Segment
	for _, segment := range []*evidence.Segment{artifact.Index, artifact.Timeline} {
		if segment != nil {
			found = append(found, *segment)
		}
	}
	return found
}

// listError compares the objects that the record lists with those that the statements name. What a record or a statement
// shows alone is refused also where another statement could not be read.
func (v *verification) listError() error {
	for _, statement := range v.record.custody.Statements {
		if statement.Bundle.RetainUntil.Before(v.record.custody.RetainUntil) {
			return refuse("%s is kept until %s only", statement.Bundle.Key, statement.Bundle.RetainUntil)
		}
		besides := map[string]bool{}
		for _, beside := range statement.Countersignatures {
			switch {
			case besides[beside.Mode]:
				return refuse("%s is countersigned twice in mode %s", statement.Bundle.Key, beside.Mode)
			case beside.RetainUntil.Before(v.record.custody.RetainUntil):
				return refuse("%s is kept until %s only", beside.Key, beside.RetainUntil)
			}
			besides[beside.Mode] = true
		}
	}
	onRecord := map[place]bool{}
	var unnamed error
	for _, object := range v.record.custody.Objects {
		at := place{object.Key, object.VersionID}
		if onRecord[at] {
			return refuse("%s is listed twice", object.Key)
		}
		onRecord[at] = true
		named, ok := v.listed[at]
		switch {
		case object.RetainUntil.Before(v.record.custody.RetainUntil):
			return refuse("%s is kept until %s only", object.Key, object.RetainUntil)
		case object.Role == evidence.RoleTrust, object.Role == evidence.RoleClusterState && !ok:
		case !ok:
			unnamed = refuse("%s version %s is named by no statement", object.Key, object.VersionID)
		case named.Size != object.Size || named.SHA256 != object.SHA256:
			return refuse("%s has %d bytes with sha256 %s on record, its statement says %d with %s",
				object.Key, object.Size, object.SHA256, named.Size, named.SHA256)
		}
	}
	for _, at := range v.places() {
		if !onRecord[at] {
			return refuse("%s version %s, which a statement names, is not on record", at.key, at.version)
		}
	}
	return v.together(unnamed)
}

func (v *verification) places() []place {
	places := make([]place, 0, len(v.listed))
	for at := range v.listed {
		places = append(places, at)
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.key != b.key {
			return compare(a.key, b.key)
		}
		return compare(a.version, b.version)
	})
	return places
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// readBackError demands that everything stored was read back by somebody else than the node, and agreed.
func readBackError(r *response) error {
	switch {
	case r.ReadBack == nil:
		return refuse("nobody read back what %s stored", r.Response.Name)
	case !r.ReadBack.Agrees:
		return refuse("%s found: %s", r.ReadBack.By, r.ReadBack.Message)
	}
	for _, artifact := range r.Artifacts {
		if artifact.Asserted.By == r.ReadBack.By {
			return refuse("%s read back its own artifact %s", r.ReadBack.By, artifact.Name)
		}
		for _, segment := range slices.Concat(artifact.Segments, companions(&artifact)) {
			if segment.ObservedSHA256 != segment.SHA256 {
				return refuse("%s is asserted to have sha256 %s, observed was %q", segment.Key, segment.SHA256, segment.ObservedSHA256)
			}
		}
	}
	for _, attachment := range r.Attachments {
		if attachment.ObservedSHA256 != attachment.SHA256 {
			return refuse("%s is asserted to have sha256 %s, observed was %q", attachment.Key, attachment.SHA256, attachment.ObservedSHA256)
		}
	}
	return nil
}

// checkObject reads one object and checks its bytes and its lock. It says whether the source gave what it has of it.
func (v *verification) checkObject(ctx context.Context, link string, segment evidence.Segment, to ...io.Writer) bool {
	err := stream(ctx, v.source, version(segment), to...)
	v.report.add(link, CheckDigest, err, "")
	v.checkKept(ctx, link, version(segment), v.lockMode())
	return !isUnread(err)
}

// checkArtifact reads the segments in order, as the stream that they are, and what goes with them.
func (v *verification) checkArtifact(ctx context.Context, artifact *evidence.Artifact) {
	link := "artifact " + artifact.Name
	whole := &counted{hash: sha256.New()}
	sealed, given := false, true
	for i, segment := range artifact.Segments {
		if int(segment.Index) != i {
			v.report.add(link, CheckStream, refuse("segment %d stands at place %d", segment.Index, i), "")
		}
		sealed = sealed || segment.Plain != nil
		given = v.checkObject(ctx, "object "+segment.Key, segment, whole) && given
	}
	switch {
	case !given:
		v.report.notChecked(link, CheckStream, "not all of it could be read")
	case sealed:
		v.report.notChecked(link, CheckStream, "it is encrypted to a key that is not here")
	default:
		v.report.add(link, CheckStream, whole.compare(artifact), fmt.Sprintf("%d bytes, sha256 %s", whole.size, artifact.Asserted.SHA256))
	}
	v.checkIndex(ctx, artifact)
	if artifact.Timeline != nil {
		v.checkObject(ctx, "object "+artifact.Timeline.Key, *artifact.Timeline)
	}
}

// counted hashes a stream.
type counted struct {
	hash hash.Hash
	size int64
}

func (c *counted) Write(data []byte) (int, error) {
	c.size += int64(len(data))
	return c.hash.Write(data)
}

func (c *counted) compare(artifact *evidence.Artifact) error {
	digest := hex.EncodeToString(c.hash.Sum(nil))
	if c.size != artifact.Size || digest != artifact.Asserted.SHA256 {
		return refuse("the segments are %d bytes with sha256 %s, signed are %d with %s", c.size, digest, artifact.Size, artifact.Asserted.SHA256)
	}
	if seen := artifact.Observed; seen != nil && seen.SHA256 != "" && seen.SHA256 != digest {
		return refuse("%s observed the sha256 %s", seen.By, seen.SHA256)
	}
	return nil
}

// checkIndex reads the index of an archive and computes the Merkle root over its lines.
func (v *verification) checkIndex(ctx context.Context, artifact *evidence.Artifact) {
	link := "artifact " + artifact.Name
	switch {
	case artifact.Index == nil && artifact.MerkleRoot == "":
		return
	case artifact.Index == nil:
		v.report.notChecked(link, CheckMerkle, "its index was not stored")
		return
	case artifact.Index.Plain != nil:
		v.checkObject(ctx, "object "+artifact.Index.Key, *artifact.Index)
		v.report.notChecked(link, CheckMerkle, "its index is encrypted to a key that is not here")
		return
	}
	packed, writer := io.Pipe()
	result := make(chan error, 1)
	go func() {
		err := readIndex(packed, artifact, func(*evidence.Entry, *evidence.IndexReader) {})
		_, drained := io.Copy(io.Discard, packed) // the digest is over all bytes, also those after a broken line
		result <- errors.Join(err, drained)
	}()
	given := v.checkObject(ctx, "object "+artifact.Index.Key, *artifact.Index, writer)
	err := errors.Join(writer.Close(), <-result)
	if !given {
		v.report.notChecked(link, CheckMerkle, "not all of its index could be read")
		return
	}
	v.report.add(link, CheckMerkle, err, fmt.Sprintf("%d lines, root %s", artifact.IndexLines, artifact.MerkleRoot))
}

// checkUnnamed reads what the record lists and no statement names.
func (v *verification) checkUnnamed(ctx context.Context) {
	if v.record == nil {
		return
	}
	for _, object := range v.record.custody.Objects {
		if _, ok := v.listed[place{object.Key, object.VersionID}]; ok {
			continue
		}
		link := "object " + object.Key
		v.report.add(link, CheckDigest, stream(ctx, v.source, object.StoredVersion), string(object.Role))
		v.checkKept(ctx, link, object.StoredVersion, v.lockMode())
	}
}
