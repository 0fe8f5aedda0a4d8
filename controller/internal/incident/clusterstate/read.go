package clusterstate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ugallu.io/forensics/api/v1alpha1"
	"ugallu.io/forensics/controller/internal/repeat"
)

// Reasons of gaps.
const (
	// gapUnreadable: the API server refused or did not answer.
	gapUnreadable = "ClusterObjectUnreadable"
	// gapGone: an object does not exist, or another one has its name.
	gapGone = "ClusterObjectGone"
	// gapKind: an owner of a kind that is not read.
	gapKind = "ClusterKindNotRead"
	// gapTruncated: a bound was reached.
	gapTruncated = "ClusterStateTruncated"
)

const (
	// tryTimeout bounds one try.
	tryTimeout = 5 * time.Second
	// share is a third of the time left: what the events take of it at the most, however many of other objects the API server
	// has to look through, where the bindings of the pod's account are read after them, and what these leave to the rules of
	// their roles.
	share = 3
)

// state is the pod's objects as they are read, in the order of the documents.
type state struct {
	reader client.Reader
	clock  clock.PassiveClock
	// left is how long questions may still take. Waiting for the pages of other states does not count.
	left time.Duration
	// reading has room for one state, the one whose page of a list is in memory.
	reading   chan struct{}
	redact    *redaction
	documents []document
	// room is how many bytes of documents may be added, in JSON.
	room int
	gaps []gap
}

// document is one object of the state.
type document struct {
	name   string
	object any
}

// gap is one thing that the state lacks.
type gap struct {
	Reason  string `json:"reason"`
	Object  string `json:"object"`
	Message string `json:"message"`
}

// read asks for the pod first, as it is what goes first, and then for what stands around it. What cannot be read is a gap,
// never an error.
func (r *Reconciler) read(ctx context.Context, incident *v1alpha1.Incident) (content, error) {
	ref := incident.Spec.Pod
	s := &state{
		reader: r.Live, clock: r.Clock, left: readTimeout, reading: r.pages(),
		redact: newRedaction(incident.Spec.Snapshot), room: maxBytes,
	}
	pod := s.object(ctx, schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, client.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, ref.UID)
	var account string
	if pod != nil {
		s.owners(ctx, pod)
		// A pod without one has nothing to read; the API server keeps the shape.
		account, _, _ = unstructured.NestedString(pod.Object, "spec", "serviceAccountName")
	}
	if account != "" {
		s.object(ctx, schema.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}, client.ObjectKey{Namespace: ref.Namespace, Name: account}, "")
	}
	s.object(ctx, schema.GroupVersionKind{Version: "v1", Kind: "Node"}, client.ObjectKey{Name: ref.NodeName}, "")
	s.lists(ctx, ref, account)
	return s.render(incident)
}

// lists asks for the events first, which are the pod's own, and keeps room and time for what the account may do,
// which takes every binding of the cluster. The events are the last documents.
func (s *state) lists(ctx context.Context, pod v1alpha1.PodRef, account string) {
	if account == "" {
		s.events(ctx, pod)
		return
	}
	before := s.documents
	s.documents = nil
	s.eventsApart(ctx, pod)
	events := s.documents
	s.documents = before
	s.access(ctx, pod.Namespace, account)
	s.documents = append(s.documents, events...)
}

// eventsApart reads the events within their share of the time, and of the wait for the pages of other states.
func (s *state) eventsApart(ctx context.Context, pod v1alpha1.PodRef) {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout/share)
	defer cancel()
	kept := s.left - s.left/share
	s.left, s.room = s.left-kept, s.room-maxDocument
	s.events(ctx, pod)
	s.left, s.room = s.left+kept, s.room+maxDocument
}

// object adds one object, if it has the uid where one is given, and returns it, or nil where it became a gap.
func (s *state) object(ctx context.Context, kind schema.GroupVersionKind, key client.ObjectKey, uid string) *unstructured.Unstructured {
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(kind)
	name := title(kind.Kind, key)
	if err := s.ask(ctx, func(ctx context.Context) error { return s.reader.Get(ctx, key, found) }); err != nil {
		s.missing(name, err)
		return nil
	}
	if uid != "" && string(found.GetUID()) != uid {
		s.gap(gapGone, name, fmt.Sprintf("another object of this name, with uid %s, stands in place of the one with uid %s", found.GetUID(), uid))
		return nil
	}
	s.add(name, found.Object)
	return found
}

func title(kind string, key client.ObjectKey) string {
	if key.Namespace == "" {
		return kind + " " + key.Name
	}
	return kind + " " + key.Namespace + "/" + key.Name
}

// add keeps an object without its book-keeping and without values that are to be redacted.
func (s *state) add(name string, object map[string]any) bool {
	unstructured.RemoveNestedField(object, "metadata", "managedFields")
	s.redact.tree(object)
	return s.keep(name, object)
}

// keep appends a document if there is room for it, and says so: what is read may be more than memory holds.
func (s *state) keep(name string, object any) bool {
	written, err := json.Marshal(object)
	if err != nil {
		s.missing(name, fmt.Errorf("measure: %w", err))
		return false
	}
	if len(written) > min(maxDocument, s.room) {
		s.gap(gapTruncated, name, fmt.Sprintf("%d bytes are left out", len(written)))
		return false
	}
	s.room -= len(written)
	s.documents = append(s.documents, document{name, object})
	return true
}

// page has one page of a list looked at, empties it, and returns where the next one begins. Of all states that are being
// read one page is in memory at a time. Between two tries at it, those of other states are read.
func (s *state) page(ctx context.Context, page client.ObjectList, look func(), where ...client.ListOption) (next string, err error) {
	var emptied error
	err = s.retry(ctx, func() error {
		select {
		case s.reading <- struct{}{}:
			defer func() { <-s.reading }()
		case <-ctx.Done():
			return fmt.Errorf("wait for the pages of other incidents: %w", ctx.Err())
		}
		if err := s.once(ctx, func(ctx context.Context) error { return s.reader.List(ctx, page, where...) }); err != nil {
			return err
		}
		look()
		next = page.GetContinue()
		page.SetContinue("")
		emptied = meta.SetList(page, nil)
		return nil
	})
	if emptied != nil {
		return "", fmt.Errorf("empty a page: %w", emptied)
	}
	return next, err
}

func (s *state) gap(reason, object, message string) {
	s.gaps = append(s.gaps, gap{reason, object, message})
}

func (s *state) missing(name string, err error) {
	reason := gapUnreadable
	if apierrors.IsNotFound(err) {
		reason = gapGone
	}
	s.gap(reason, name, err.Error())
}

// ask repeats a question unless the answer is one, within what is left of the time for all.
func (s *state) ask(ctx context.Context, question func(context.Context) error) error {
	return s.retry(ctx, func() error { return s.once(ctx, question) })
}

// retry is ask for a try that calls once itself, after a wait that is not to take of the time for questions.
func (s *state) retry(ctx context.Context, once func() error) error {
	return repeat.While(ctx, func() bool { return s.left > 0 }, once)
}

func (s *state) once(ctx context.Context, question func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, min(tryTimeout, s.left))
	defer cancel()
	asked := s.clock.Now()
	defer func() { s.left -= s.clock.Since(asked) }()
	return question(ctx)
}

// counted merges gaps of one reason; the first message stays.
func counted(gaps []gap) []v1alpha1.GapCount {
	var counts []v1alpha1.GapCount
	for _, g := range gaps {
		at := slices.IndexFunc(counts, func(c v1alpha1.GapCount) bool { return c.Reason == g.Reason })
		if at >= 0 {
			counts[at].Count++
			continue
		}
		message := g.Object + ": " + g.Message
		counts = append(counts, v1alpha1.GapCount{Reason: g.Reason, Message: message[:min(len(message), maxMessage)], Count: 1})
	}
	slices.SortFunc(counts, func(a, b v1alpha1.GapCount) int { return strings.Compare(a.Reason, b.Reason) })
	return counts
}
