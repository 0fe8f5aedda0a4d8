package verifytest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"ugallu.io/forensics/api/evidence"
	"ugallu.io/forensics/internal/worm"
)

// Store is a bucket in memory that does what a real one never does: it lets stored versions be changed.
type Store struct {
	t testing.TB
	// versions of each key, the oldest first.
	versions map[string][]*Version
	made     int
	// Read counts the bytes that were read.
	Read int64
}

// Version is one stored version.
type Version struct {
	Object worm.Object
	Data   []byte
}

// NewStore is empty.
func NewStore(t testing.TB) *Store { return &Store{t: t, versions: map[string][]*Version{}} }

// Put stores a new version.
func (s *Store) Put(key string, data []byte, lock worm.Lock) worm.Object {
	s.made++
	object := worm.Object{
		Key: key, VersionID: fmt.Sprintf("v%d", s.made), Size: int64(len(data)), SHA256: evidence.Digest(data), Lock: lock,
	}
	s.versions[key] = append(s.versions[key], &Version{Object: object, Data: data})
	return object
}

// Newest version of a key, to be changed.
func (s *Store) Newest(key string) *Version {
	s.t.Helper()
	found := s.versions[key]
	if len(found) == 0 {
		s.t.Fatalf("the store has no %s", key)
	}
	return found[len(found)-1]
}

// Key is the only one that contains every part.
func (s *Store) Key(parts ...string) string {
	s.t.Helper()
	var found []string
	for key := range s.versions {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(key, part) }) {
			found = append(found, key)
		}
	}
	if len(found) != 1 {
		s.t.Fatalf("keys with %q: %q, want one", parts, found)
	}
	return found[0]
}

// Delete removes every version of a key.
func (s *Store) Delete(key string) { delete(s.versions, key) }

// Stat is that of worm.Reader.
func (s *Store) Stat(_ context.Context, key, versionID string) (worm.Object, error) {
	found, err := s.find(key, versionID)
	if err != nil {
		return worm.Object{}, err
	}
	object := found.Object
	object.SHA256 = ""
	return object, nil
}

// Open is that of worm.Reader.
func (s *Store) Open(_ context.Context, key, versionID string) (io.ReadCloser, error) {
	found, err := s.find(key, versionID)
	if err != nil {
		return nil, err
	}
	return s.count(found.Data), nil
}

// OpenRange reads a part.
func (s *Store) OpenRange(_ context.Context, key, versionID string, offset, length int64) (io.ReadCloser, error) {
	found, err := s.find(key, versionID)
	if err != nil {
		return nil, err
	}
	return s.count(found.Data[offset : offset+length]), nil
}

func (s *Store) count(data []byte) io.ReadCloser {
	s.Read += int64(len(data))
	return io.NopCloser(bytes.NewReader(data))
}

// List returns keys in order.
func (s *Store) List(_ context.Context, prefix string) ([]string, error) {
	var keys []string
	for key := range s.versions {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys, nil
}

func (s *Store) find(key, versionID string) (*Version, error) {
	versions := s.versions[key]
	for i := len(versions) - 1; i >= 0; i-- {
		if versionID == "" || versions[i].Object.VersionID == versionID {
			return versions[i], nil
		}
	}
	return nil, fmt.Errorf("%s version %q: %w", key, versionID, worm.ErrNotFound)
}
