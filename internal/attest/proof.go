package attest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// checkProofs ties the parts of each log entry together that the verifier of Sigstore bundles does not read, because
// it computes the entry anew: the stored body, the root and the size of the tree. It runs after that verifier has
// checked the checkpoint's signature.
func checkProofs(bundle *protobundle.Bundle) error {
	for i, entry := range bundle.GetVerificationMaterial().GetTlogEntries() {
		if err := checkProof(entry); err != nil {
			return fmt.Errorf("log entry %d: %w", i, err)
		}
	}
	return nil
}

func checkProof(entry *protorekor.TransparencyLogEntry) error {
	inclusion := entry.GetInclusionProof()
	size, root, err := parseCheckpoint(inclusion.GetCheckpoint().GetEnvelope())
	if err != nil {
		return err
	}
	if tree := inclusion.GetTreeSize(); tree < 0 || uint64(tree) != size {
		return fmt.Errorf("tree size %d is not the checkpoint's %d", inclusion.GetTreeSize(), size)
	}
	if !bytes.Equal(inclusion.GetRootHash(), root) {
		return errors.New("root hash is not the checkpoint's")
	}
	if inclusion.GetLogIndex() != entry.GetLogIndex() || entry.GetLogIndex() < 0 {
		return fmt.Errorf("log index %d is not the proof's %d", entry.GetLogIndex(), inclusion.GetLogIndex())
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(entry.GetCanonicalizedBody())
	index := uint64(entry.GetLogIndex()) // #nosec G115 -- not negative, checked above
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf, inclusion.GetHashes(), root); err != nil {
		return fmt.Errorf("body is not in the tree: %w", err)
	}
	return nil
}

// parseCheckpoint reads the size and the root of a tree: the second and third line of a checkpoint.
func parseCheckpoint(checkpoint string) (uint64, []byte, error) {
	lines := strings.SplitN(checkpoint, "\n", 4)
	if len(lines) < 4 {
		return 0, nil, errors.New("checkpoint has fewer than three lines")
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil {
		return 0, nil, fmt.Errorf("checkpoint has the tree size %q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil {
		return 0, nil, fmt.Errorf("decode the checkpoint's root: %w", err)
	}
	return size, root, nil
}
