package worm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"
)

// Memory is a Store inside the process, for tests: it keeps the contract of the real ones except across a restart.
type Memory struct {
	mutex   sync.Mutex
	objects map[string]stored
	order   []string
}

type stored struct {
	object Object
	data   []byte
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: map[string]stored{}} }

// Put stores body under key if the key is free when the body ends.
func (m *Memory) Put(ctx context.Context, key string, body io.Reader, lock Lock) (Object, error) {
	lock, err := lock.normalize(time.Now())
	if err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return Object{}, fmt.Errorf("put %s: read body: %w", key, err)
	}
	if err := ctx.Err(); err != nil {
		return Object{}, fmt.Errorf("put %s: %w", key, err)
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if _, taken := m.objects[key]; taken {
		return Object{}, fmt.Errorf("put %s: %w", key, ErrExists)
	}
	sum := sha256.Sum256(data)
	object := Object{
		Key:       key,
		VersionID: fmt.Sprintf("version-%d", len(m.order)+1),
		Size:      int64(len(data)),
		SHA256:    hex.EncodeToString(sum[:]),
		Lock:      lock,
	}
	m.objects[key] = stored{object: object, data: data}
	m.order = append(m.order, key)
	return object, nil
}

// Stat returns one version, without its digest.
func (m *Memory) Stat(_ context.Context, key, versionID string) (Object, error) {
	found, err := m.find(key, versionID)
	if err != nil {
		return Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	object := found.object
	object.SHA256 = ""
	return object, nil
}

// Open reads one version.
func (m *Memory) Open(_ context.Context, key, versionID string) (io.ReadCloser, error) {
	found, err := m.find(key, versionID)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return io.NopCloser(bytes.NewReader(found.data)), nil
}

// Objects lists what is stored, oldest first.
func (m *Memory) Objects() []Object {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	objects := make([]Object, 0, len(m.order))
	for _, key := range m.order {
		objects = append(objects, m.objects[key].object)
	}
	return objects
}

func (m *Memory) find(key, versionID string) (stored, error) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	found, ok := m.objects[key]
	if !ok || (versionID != "" && versionID != found.object.VersionID) {
		return stored{}, ErrNotFound
	}
	return found, nil
}
