package verify

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"ugallu.io/forensics/api/evidence"
)

// FileProof is what is proven of one file of one archive, without the archive.
type FileProof struct {
	Artifact string `json:"artifact"`
	// Entry is the line of the index.
	Entry evidence.Entry `json:"entry"`
	// Inclusion proves the line against the signed Merkle root.
	Inclusion  evidence.Inclusion `json:"inclusion"`
	MerkleRoot string             `json:"merkleRoot"`
	// IndexBytes and FrameBytes are how much was read from the store: the index, and the frames that the file lies in.
	IndexBytes int64 `json:"indexBytes"`
	FrameBytes int64 `json:"frameBytes"`
}

// FileQuery says which file to look for.
type FileQuery struct {
	// Path from the root of the archive, with or without a leading slash.
	Path string
	// Artifact to look in; empty is every one.
	Artifact string
}

// LinkFile of a report is followed by the file's path.
const LinkFile = "file "

// Questions about a file, beside its digest.
const (
	// CheckIncluded: its line of the index is a leaf of the signed Merkle tree.
	CheckIncluded = "included"
	// CheckContent: what lies in the archive at the place that the line gives is this file, with the digest of the line.
	CheckContent = "content"
)

// File checks one file in every archive that holds it, and of the chain what that rests on: the custody record, the
// statements, what was read back of the captures that are searched, and the locks of what is read. It reads the index and
// the frames that hold the file, not the archive.
func File(ctx context.Context, source Source, prover Prover, target Target, query FileQuery) (*Report, []FileProof, error) {
	v, err := begin(ctx, source, prover, target)
	if err != nil {
		return nil, nil, err
	}
	if v.refused {
		return v.report, nil, nil
	}
	v.proveRecords(ctx)
	v.proveStatements(ctx)
	v.checkChain()
	v.checkFacts()
	return v.report, v.findFile(ctx, query), nil
}

func (v *verification) findFile(ctx context.Context, query FileQuery) []FileProof {
	var proofs []FileProof
	searched, left := 0, 0
	for _, l := range v.links {
		archives := searchable(l, query.Artifact)
		if len(archives) > 0 {
			v.report.add(l.name, CheckReadBack, readBackError(l.response), "")
		}
		for _, artifact := range archives {
			proof, whole := v.proveFile(ctx, artifact, query.Path)
			if proof != nil {
				proofs = append(proofs, *proof)
			}
			if whole {
				searched++
			} else {
				left++
			}
		}
	}
	if len(proofs) == 0 {
		v.report.add(LinkFile+query.Path, CheckIncluded, v.together(unfoundError(searched, left)), "")
	}
	return proofs
}

// unfoundError refuses a file that no index names, unless there are indexes that could not be searched: it could be in those.
func unfoundError(searched, left int) error {
	if left > 0 {
		return &unreadError{fmt.Errorf("no index of %d names it, %d could not be searched", searched, left)}
	}
	return refuse("no index of %d names it", searched)
}

// searchable are the archives of a statement that have an index, or had one made; name limits them to one.
func searchable(l *link, name string) []*evidence.Artifact {
	if l.response == nil {
		return nil
	}
	var found []*evidence.Artifact
	for i := range l.response.Artifacts {
		artifact := &l.response.Artifacts[i]
		if (artifact.Index != nil || artifact.MerkleRoot != "") && (name == "" || artifact.Name == name) {
			found = append(found, artifact)
		}
	}
	return found
}

// proveFile returns nil where the artifact does not hold the file, and whether its index was searched to the end.
func (v *verification) proveFile(ctx context.Context, artifact *evidence.Artifact, name string) (proof *FileProof, searched bool) {
	link := LinkFile + name + " in " + artifact.Name
	switch {
	case artifact.Index == nil:
		v.report.notChecked(link, CheckIncluded, "the index was not stored")
		return nil, false
	case artifact.Index.Plain != nil:
		v.report.notChecked(link, CheckIncluded, "the index is encrypted to a key that is not here")
		return nil, false
	case artifact.Index.Size > maxHeldIndex:
		v.report.add(link, CheckDigest, &unreadError{fmt.Errorf(
			"the index has %d bytes, more than the %d that are held to find one file: check the whole", artifact.Index.Size, maxHeldIndex)}, "")
		return nil, false
	}
	v.checkKept(ctx, "object "+artifact.Index.Key, version(*artifact.Index), v.lockMode())
	var packed bytes.Buffer
	if err := stream(ctx, v.source, version(*artifact.Index), &packed); err != nil {
		v.report.add(link, CheckDigest, err, "")
		return nil, false
	}
	at, err := search(packed.Bytes(), artifact, strings.Trim(name, "/"))
	if err != nil {
		v.report.add(link, CheckMerkle, err, "")
		return nil, false
	}
	if at == nil {
		return nil, true
	}
	proof = &FileProof{Artifact: artifact.Name, Entry: *at.entry, MerkleRoot: artifact.MerkleRoot, IndexBytes: int64(packed.Len())}
	proof.Inclusion, err = proveLine(packed.Bytes(), at, artifact.MerkleRoot)
	v.report.add(link, CheckIncluded, err, fmt.Sprintf("line %d of %d, root %s", at.leaf, artifact.IndexLines, artifact.MerkleRoot))
	v.checkContent(ctx, link, artifact, proof)
	return proof, true
}

// checkContent reads the frames that a regular file lies in.
func (v *verification) checkContent(ctx context.Context, link string, artifact *evidence.Artifact, proof *FileProof) {
	entry := &proof.Entry
	if entry.Type != evidence.EntryFile || entry.Position == nil {
		v.report.notChecked(link, CheckContent, fmt.Sprintf("a %s has none in the archive %v", entry.Type, entry.Gaps))
		return
	}
	frames, err := v.openFrames(ctx, artifact, entry.Position)
	if err != nil {
		v.report.add(link, CheckContent, err, "")
		return
	}
	counted := &countingReader{from: frames}
	found, err := contentError(counted, artifact.MediaType, entry)
	_, drained := io.Copy(io.Discard, counted)
	err = errors.Join(err, sourceError(drained), sourceError(frames.Close()))
	proof.FrameBytes = counted.size
	v.report.add(link, CheckContent, err, fmt.Sprintf("%s; %d bytes of %d downloaded", found, counted.size, artifact.Size))
}

// line is a line of an index that was found.
type line struct {
	entry *evidence.Entry
	text  []byte
	leaf  uint64
}

// search finds the last line of a path, or of the first name of a hard link, and checks the root over all lines.
func search(packed []byte, artifact *evidence.Artifact, name string) (*line, error) {
	for range 2 {
		found, err := scan(packed, artifact, name)
		if err != nil || found == nil || found.entry.Type != evidence.EntryHardLink {
			return found, err
		}
		name = found.entry.RawLink()
	}
	return nil, refuse("%s is the name of a hard link to a hard link", name)
}

func scan(packed []byte, artifact *evidence.Artifact, name string) (*line, error) {
	var found *line
	err := readIndex(bytes.NewReader(packed), artifact, func(entry *evidence.Entry, at *evidence.IndexReader) {
		if entry.RawPath() == name {
			found = &line{entry: entry, text: bytes.Clone(at.Line()), leaf: at.Size() - 1}
		}
	})
	return found, err
}

func proveLine(packed []byte, at *line, root string) (evidence.Inclusion, error) {
	plain, err := unpackZstd(bytes.NewReader(packed))
	if err != nil {
		return evidence.Inclusion{}, err
	}
	defer plain.Close()
	proof, err := evidence.Prove(bufio.NewReader(plain), at.leaf)
	if err != nil {
		return evidence.Inclusion{}, refuse("%v", err)
	}
	if err := proof.Verify(at.text, root); err != nil {
		return evidence.Inclusion{}, refuse("%v", err)
	}
	return proof, nil
}

type countingReader struct {
	from io.Reader
	size int64
}

func (c *countingReader) Read(to []byte) (int, error) {
	n, err := c.from.Read(to)
	c.size += int64(n)
	return n, err
}
