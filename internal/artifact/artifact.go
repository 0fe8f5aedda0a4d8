package artifact

import (
	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/api/v1alpha1"
)

// Evidence describes an artifact. asserted says by whom and from which node; its digest is the artifact's. seen is nil
// when nobody read anything back.
func Evidence(artifact *v1alpha1.Artifact, asserted evidence.Asserted, seen *Observed) evidence.Artifact {
	asserted.SHA256 = artifact.SHA256
	return evidence.Artifact{
		Name:             artifact.Name,
		Kind:             string(artifact.Kind),
		Container:        artifact.Container,
		MediaType:        artifact.MediaType,
		Size:             artifact.Size,
		Entries:          artifact.Entries,
		MerkleRoot:       artifact.MerkleRoot,
		IndexLines:       artifact.IndexLines,
		Index:            seen.companion(artifact.Index),
		Timeline:         seen.companion(artifact.Timeline),
		Asserted:         asserted,
		Observed:         seen.whole(artifact),
		Segments:         seen.Segments(artifact.Segments),
		FrozenThroughout: artifact.FrozenThroughout,
		Truncated:        artifact.Truncated,
	}
}
