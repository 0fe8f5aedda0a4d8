package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"ugallu.io/forensics/internal/worm"
)

const (
	foldersMode = 0o750
	filesMode   = 0o640
	// partSuffix of a copy that is not complete.
	partSuffix = ".part"
)

// Copier is a Source that keeps a copy of everything that is read through it, in a folder that is a Source itself. It
// copies what the store gives, whether or not it verifies.
type Copier struct {
	from Source
	root *os.Root

	mutex sync.Mutex
	kept  map[place]Kept
	// copied are the versions that the files of the folder are copies of, by key, as they were asked for.
	copied map[string]string
	bytes  int64
}

// Fetch is Incident through a Copier. From the first record it copies what the second one lists as well: whoever verifies
// the copy begins with its last record. What of that cannot be read, or is refused, is in the report.
func Fetch(ctx context.Context, copier *Copier, prover Prover, target Target) (*Report, error) {
	v, err := whole(ctx, copier, prover, target)
	if err != nil {
		return nil, err
	}
	if v.later == "" {
		return v.report, nil
	}
	later, err := Incident(ctx, copier, prover, Target{Key: v.later})
	if err != nil {
		later = &Report{Checks: []Check{{Link: "object " + v.later, Check: CheckDigest, Status: Unread, Reason: err.Error()}}}
	}
	for _, check := range later.Checks {
		lacking := check.Status == Unread || check.Status == Failed
		if lacking && !slices.Contains(v.report.Checks, check) {
			v.report.Checks = append(v.report.Checks, check)
		}
	}
	return v.report, nil
}

// NewCopier copies to a folder that is made if need be, and that must be empty: what is there already could be taken for
// what the store gave.
func NewCopier(from Source, dir string) (*Copier, error) {
	if err := os.MkdirAll(dir, foldersMode); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look into folder: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("folder %s is not empty", dir)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return &Copier{from: from, root: root, kept: map[place]Kept{}, copied: map[string]string{}}, nil
}

// Bytes is how much was copied.
func (c *Copier) Bytes() int64 {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.bytes
}

// Close writes the StoreFile.
func (c *Copier) Close() error {
	return errors.Join(c.writeKept(), c.root.Close())
}

func (c *Copier) writeKept() error {
	listed := make([]Kept, 0, len(c.kept))
	for _, item := range c.kept {
		listed = append(listed, item)
	}
	slices.SortFunc(listed, func(a, b Kept) int { return compare(a.Key+"\x00"+a.VersionID, b.Key+"\x00"+b.VersionID) })
	data, err := json.MarshalIndent(listed, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal %s: %w", StoreFile, err)
	}
	if err := c.root.WriteFile(StoreFile, append(data, '\n'), filesMode); err != nil {
		return fmt.Errorf("write %s: %w", StoreFile, err)
	}
	return nil
}

// Stat notes what the store says.
func (c *Copier) Stat(ctx context.Context, key, versionID string) (worm.Object, error) {
	object, err := c.from.Stat(ctx, key, versionID)
	if err != nil {
		return worm.Object{}, err
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.kept[place{key, object.VersionID}] = Kept{
		Key: key, VersionID: object.VersionID, Size: object.Size, LockMode: object.Lock.Mode,
		RetainUntil: object.Lock.RetainUntil.UTC().Format(time.RFC3339),
	}
	return object, nil
}

// List asks the store.
func (c *Copier) List(ctx context.Context, prefix string) ([]string, error) {
	return c.from.List(ctx, prefix)
}

// OpenRange asks the store; a part is not copied.
func (c *Copier) OpenRange(ctx context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error) {
	return c.from.OpenRange(ctx, key, versionID, offset, length)
}

// Open streams a version and copies it on the way. The copy appears when the stream was read to its end; from then on the
// version is read from there.
func (c *Copier) Open(ctx context.Context, key, versionID string) (io.ReadCloser, error) {
	if c.has(key, versionID) {
		file, err := c.root.Open(local(key))
		if err != nil {
			return nil, fmt.Errorf("open the copy of %s: %w", key, err)
		}
		return file, nil
	}
	body, err := c.from.Open(ctx, key, versionID)
	if err != nil {
		return nil, err
	}
	name := local(key)
	if err := c.root.MkdirAll(path.Dir(name), foldersMode); err != nil {
		return nil, errors.Join(fmt.Errorf("make folder for %s: %w", key, err), body.Close())
	}
	file, err := c.root.OpenFile(name+partSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, filesMode)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy %s: %w", key, err), body.Close())
	}
	return &copying{Reader: io.TeeReader(body, file), copier: c, body: body, file: file, name: name, at: place{key, versionID}}, nil
}

func (c *Copier) has(key, versionID string) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	version, copied := c.copied[key]
	return copied && version == versionID
}

// copying is one object on its way.
type copying struct {
	io.Reader
	copier *Copier
	body   io.ReadCloser
	file   *os.File
	name   string
	at     place
	ended  bool
}

// Read notes the end of the stream.
func (c *copying) Read(to []byte) (int, error) {
	n, err := c.Reader.Read(to)
	c.copier.mutex.Lock()
	c.copier.bytes += int64(n)
	c.copier.mutex.Unlock()
	c.ended = c.ended || errors.Is(err, io.EOF)
	return n, err
}

// Close gives a complete copy its name and removes another.
func (c *copying) Close() error {
	err := errors.Join(c.body.Close(), c.file.Close())
	if !c.ended || err != nil {
		return errors.Join(err, c.copier.root.Remove(c.name+partSuffix))
	}
	if err := c.copier.root.Rename(c.name+partSuffix, c.name); err != nil {
		return fmt.Errorf("keep the copy of %s: %w", c.name, err)
	}
	c.copier.mutex.Lock()
	defer c.copier.mutex.Unlock()
	c.copier.copied[c.at.key] = c.at.version
	return nil
}

func (k Kept) object() (worm.Object, error) {
	object := worm.Object{Key: k.Key, VersionID: k.VersionID, Size: k.Size, Lock: worm.Lock{Mode: k.LockMode}}
	if k.RetainUntil != "" {
		until, err := time.Parse(time.RFC3339, k.RetainUntil)
		if err != nil {
			return worm.Object{}, fmt.Errorf("%s: %w", k.Key, err)
		}
		object.Lock.RetainUntil = until
	}
	return object, nil
}
