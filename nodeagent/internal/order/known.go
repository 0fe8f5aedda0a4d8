package order

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// writing holds one token while the journal and saved are being written, for as long as the disk takes.
	writing chan struct{}
	// saved is what the journal says.
	saved *knowledge
}

// knowledge is what is known at one moment.
type knowledge struct {
	Responses []v1alpha1.EventResponse `json:"responses"`
	Incidents []v1alpha1.Incident      `json:"incidents"`
}

// brief is what must not be forgotten: what tells which pods are to be contained, and until when. What was reached, such as
// the list of what was stored, is most of a record, and on it at the API server.
func (k knowledge) brief() knowledge {
	kept := knowledge{Responses: make([]v1alpha1.EventResponse, len(k.Responses)), Incidents: make([]v1alpha1.Incident, len(k.Incidents))}
	for i := range k.Responses {
		from, to := &k.Responses[i], &kept.Responses[i]
		to.Name, to.UID, to.Spec = from.Name, from.UID, from.Spec
		to.Status.CompletedAt, to.Status.Phase = from.Status.CompletedAt, from.Status.Phase
	}
	for i := range k.Incidents {
		from, to := &k.Incidents[i], &kept.Incidents[i]
		to.Name, to.UID, to.Spec.Disposition, to.Status.UnfreezeAt = from.Name, from.UID, from.Spec.Disposition, from.Status.UnfreezeAt
	}
	return kept
}

// NewKnown reads from a cache once Synced was called, and from the journal in the folder before.
func NewKnown(reader client.Reader, folder string) *Known {
	return &Known{
		reader: reader, journal: filepath.Join(folder, journalName), replace: replace,
		closed: map[string]*v1alpha1.EventResponse{}, writing: make(chan struct{}, 1),
	}
}

// Synced says that the reader now knows every order and every open incident.
func (k *Known) Synced() { k.synced.Store(true) }

// read returns lists that the caller may change and objects that it may not.
func (k *Known) read(ctx context.Context) (knowledge, error) {
	if !k.synced.Load() {
		last, err := k.remembered()
		if err != nil {
			return knowledge{}, err
		}
		return k.withOwn(last), nil
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

// withOwn brings the journal up to date with what this process closed since it was written: the orders, and the incidents of
// those that contain a pod. Such an incident is open as far as anybody knows.
func (k *Known) withOwn(last knowledge) knowledge {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	for _, uid := range slices.Sorted(maps.Keys(k.closed)) {
		closed := k.closed[uid]
		same := func(one v1alpha1.EventResponse) bool { return one.UID == closed.UID }
		if at := slices.IndexFunc(last.Responses, same); at >= 0 {
			last.Responses[at] = *closed
		} else {
			last.Responses = append(last.Responses, *closed)
		}
		incident := types.UID(closed.Spec.IncidentUID)
		if closed.Spec.Action.Type == v1alpha1.ActionPodFreeze &&
			!slices.ContainsFunc(last.Incidents, func(one v1alpha1.Incident) bool { return one.UID == incident }) {
			last.Incidents = append(last.Incidents, v1alpha1.Incident{
				ObjectMeta: metav1.ObjectMeta{Name: closed.Spec.IncidentName, UID: incident},
			})
		}
	}
	return last
}

// hasOwn says whether this process closed an order that the reader may not show yet.
func (k *Known) hasOwn() bool {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	return len(k.closed) > 0
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

// save writes the journal when what is known has changed, or is not known there: the orders under way that it is told of.
// Until the API server was reached, that is those and what this process closed. It waits for the disk no longer than the
// context lasts, and leaves a write that hangs to its end.
func (k *Known) save(ctx context.Context, underWay ...v1alpha1.EventResponse) error {
	if !k.synced.Load() && !k.hasOwn() && len(underWay) == 0 {
		return nil
	}
	select {
	case k.writing <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("save what is known: the write before hangs: %w", ctx.Err())
	}
	done := make(chan error, 1)
	go func() {
		done <- k.write(context.WithoutCancel(ctx), underWay)
		<-k.writing
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("save what is known: the disk hangs: %w", ctx.Err())
	}
}

// write is called by one at a time: what was read first is written first.
func (k *Known) write(ctx context.Context, underWay []v1alpha1.EventResponse) error {
	known, err := k.read(ctx)
	if err != nil {
		return err
	}
	for _, order := range underWay {
		same := func(one v1alpha1.EventResponse) bool { return one.UID == order.UID }
		if !slices.ContainsFunc(known.Responses, same) {
			known.Responses = append(known.Responses, order)
		}
	}
	now := known.brief()
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
