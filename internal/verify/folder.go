package verify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"ugallu.io/forensics/internal/worm"
)

// StoreFile of a folder is what the store said of each version when the folder was filled. It is nobody's proof: a
// version's lock is checked against the store alone.
const StoreFile = "store.json"

// Kept is what a store said of one version.
type Kept struct {
	Key         string `json:"key"`
	VersionID   string `json:"versionId"`
	Size        int64  `json:"size"`
	LockMode    string `json:"lockMode"`
	RetainUntil string `json:"retainUntil"`
}

// Folder is a Source on disk: each object lies under its key. Nothing outside the folder is ever read, whatever a record
// names.
type Folder struct {
	root *os.Root
	// kept by key and version; nil without a StoreFile.
	kept map[place]worm.Object
}

// OpenFolder reads what the folder's StoreFile says, if it has one.
func OpenFolder(dir string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	folder := &Folder{root: root}
	data, err := readStoreFile(root)
	if errors.Is(err, fs.ErrNotExist) {
		return folder, nil
	}
	if err == nil {
		folder.kept, err = parseKept(data)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", StoreFile, err), root.Close())
	}
	return folder, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error { return f.root.Close() }

// Stat returns what the store said of a version. Its VersionID is empty where the folder does not know.
func (f *Folder) Stat(_ context.Context, key, versionID string) (worm.Object, error) {
	info, err := f.root.Stat(local(key))
	if err != nil {
		return worm.Object{}, missing(key, err)
	}
	if f.kept == nil {
		return worm.Object{Key: key, Size: info.Size()}, nil
	}
	object, ok := f.kept[place{key, versionID}]
	if !ok {
		return worm.Object{}, fmt.Errorf("%s does not tell of %s version %s: %w", StoreFile, key, versionID, worm.ErrNotFound)
	}
	return object, nil
}

// Open streams the copy of a key; the folder has one version of each.
func (f *Folder) Open(_ context.Context, key, _ string) (io.ReadCloser, error) {
	file, err := f.root.Open(local(key))
	if err != nil {
		return nil, missing(key, err)
	}
	return file, nil
}

// OpenRange streams a part of the copy of a key.
func (f *Folder) OpenRange(_ context.Context, key, _ string, offset, length int64) (io.ReadCloser, error) {
	file, err := f.root.Open(local(key))
	if err != nil {
		return nil, missing(key, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, offset, length), file}, nil
}

// List returns the keys of the copies that begin with prefix.
func (f *Folder) List(_ context.Context, prefix string) ([]string, error) {
	var keys []string
	err := fs.WalkDir(f.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() && strings.HasPrefix(name, prefix) {
			keys = append(keys, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list folder: %w", err)
	}
	slices.Sort(keys)
	return keys, nil
}

// local is the name of a key's copy. A key that climbs out is refused by os.Root.
func local(key string) string { return path.Clean(strings.TrimPrefix(key, "/")) }

func missing(key string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is not in the folder: %w", key, worm.ErrNotFound)
	}
	return fmt.Errorf("read %s: %w", key, err)
}

// readStoreFile reads no more than a record may have: one line of it is no longer than an object's in a record.
func readStoreFile(root *os.Root) (data []byte, err error) {
	file, err := root.Open(StoreFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, maxRecord+1))
	if err != nil {
		return nil, err
	}
	return data, longer(StoreFile, int64(len(data)), maxRecord)
}

func parseKept(data []byte) (map[place]worm.Object, error) {
	var listed []Kept
	if err := json.Unmarshal(data, &listed); err != nil {
		return nil, err
	}
	kept := map[place]worm.Object{}
	for _, item := range listed {
		object, err := item.object()
		if err != nil {
			return nil, err
		}
		kept[place{item.Key, item.VersionID}] = object
		// The newest version is asked for without its id; a copy is made of one version only.
		kept[place{item.Key, ""}] = object
	}
	return kept, nil
}
