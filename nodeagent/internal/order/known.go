package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
)

// journalName is the file that holds what was last known, on the node's own disk.
const journalName = "known.json"

// Known are the orders of this node and the open incidents: as the API server has them, with what this process has written
// since; or, as long as the API server was not reached since the start, as they were last known. So a pod is kept contained,
// and let go when its time is up, after a restart of the agent or of the node with the API server away.
type Known struct {
	reader  client.Reader
	journal string
	synced  atomic.Bool
	// replace writes the journal.
	replace func(path string, content []byte) error
	// mutex guards closed, for moments: whoever contains a pod waits for it.
	mutex sync.Mutex
	// closed are orders that this process closed, until the reader shows it.
	closed map[string]*v1alpha1.EventResponse
	// journalMutex guards the journal and saved, for as long as the disk takes.
	journalMutex sync.Mutex
	// saved is what the journal says.
	saved *knowledge
}

// knowledge is what is known at one moment.
type knowledge struct {
	Responses []v1alpha1.EventResponse `json:"responses"`
	Incidents []v1alpha1.Incident      `json:"incidents"`
}

// NewKnown reads from a cache once Synced was called, and from the journal in the folder before.
func NewKnown(reader client.Reader, folder string) *Known {
	return &Known{
		reader: reader, journal: filepath.Join(folder, journalName), replace: replace,
		closed: map[string]*v1alpha1.EventResponse{},
	}
}

// Synced says that the reader now knows every order and every open incident.
func (k *Known) Synced() { k.synced.Store(true) }

// read returns lists that the caller may change and objects that it may not.
func (k *Known) read(ctx context.Context) (knowledge, error) {
	if !k.synced.Load() {
		return k.remembered()
	}
	var responses v1alpha1.EventResponseList
	if err := k.reader.List(ctx, &responses, client.UnsafeDisableDeepCopy); err != nil {
		return knowledge{}, fmt.Errorf("list this node's orders: %w", err)
	}
	var incidents v1alpha1.IncidentList
	if err := k.reader.List(ctx, &incidents, client.UnsafeDisableDeepCopy); err != nil {
		return knowledge{}, fmt.Errorf("list open incidents: %w", err)
	}
	return knowledge{k.withClosed(responses.Items), incidents.Items}, nil
}

// note remembers an order that this process closed: the cache shows it a moment later, and what starts in the pod in that
// moment is to be contained as well.
func (k *Known) note(response *v1alpha1.EventResponse) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.closed[string(response.UID)] = response.DeepCopy()
}

// noted returns an order as this process closed it, or nil when it did not. The caller does not change it.
func (k *Known) noted(uid types.UID) *v1alpha1.EventResponse {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return k.closed[string(uid)]
}

func (k *Known) withClosed(responses []v1alpha1.EventResponse) []v1alpha1.EventResponse {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	newer := make(map[string]*v1alpha1.EventResponse, len(k.closed))
	for i := range responses {
		uid := string(responses[i].UID)
		closed := k.closed[uid]
		if closed == nil || responses[i].Status.CompletedAt != nil {
			continue
		}
		newer[uid] = closed
		responses[i] = *closed
	}
	k.closed = newer
	return responses
}

// remembered reads the journal. A node that never knew anything has none.
func (k *Known) remembered() (knowledge, error) {
	content, err := os.ReadFile(k.journal)
	if errors.Is(err, fs.ErrNotExist) {
		return knowledge{}, nil
	}
	if err != nil {
		return knowledge{}, fmt.Errorf("read what was last known: %w", err)
	}
	var last knowledge
	if err := json.Unmarshal(content, &last); err != nil {
		return knowledge{}, fmt.Errorf("read what was last known from %s: %w", k.journal, err)
	}
	return last, nil
}

// save writes the journal when what is known has changed. Until the API server was reached there is nothing to save.
func (k *Known) save(ctx context.Context) error {
	if !k.synced.Load() {
		return nil
	}
	// Read under the lock: what was read first is written first.
	k.journalMutex.Lock()
	defer k.journalMutex.Unlock()
	now, err := k.read(ctx)
	if err != nil {
		return err
	}
	if k.saved != nil && reflect.DeepEqual(*k.saved, now) {
		return nil
	}
	content, err := json.Marshal(now)
	if err != nil {
		return fmt.Errorf("encode what is known: %w", err)
	}
	if err := k.replace(k.journal, content); err != nil {
		return fmt.Errorf("save what is known: %w", err)
	}
	k.saved = &now
	return nil
}

// replace writes a file so that, whenever the machine stops, the old or the new content is there.
func replace(path string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), journalName+".")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	_, err = file.Write(content)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
