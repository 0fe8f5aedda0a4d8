package order

import (
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"ugallu.io/forensics/api/v1alpha1"
)

// sight is what this process knows of an order since it first saw it. Whoever carries the order out has it for himself.
type sight struct {
	uid types.UID
	// ends is when the time of the order is up. It is compared with time.Now alone, of which Go takes the kernel's monotonic
	// clock: nobody sets that one.
	ends time.Time
	// late says that the time is up: the order is closed with what there is.
	late bool
	// unheld is why containers are not held, as of the last try at it.
	unheld error
	// waiting are the ids of the containers that a capture waits for to be held: everything else of it is stored.
	waiting []string
	// unwritten is what a capture stored of which the record could not be written. The next start begins with it.
	unwritten *Captured
}

// keep what a capture stored until a record of it was written, which ended with err.
func (s *sight) keep(captured Captured, err error) {
	if err == nil {
		s.unwritten = nil
		return
	}
	// The capture goes on counting in its own.
	captured.Artifacts, captured.Gaps = slices.Clone(captured.Artifacts), slices.Clone(captured.Gaps)
	s.unwritten = &captured
}

// sights are those of the orders that are not closed, by name. The zero value has none.
type sights struct {
	mutex sync.Mutex
	seen  map[string]*sight
}

// of returns the sight of an order, and whether no agent has begun the order before. Its time is counted from the first
// sight on: what is left then is told by the API server's clock, by which the order was made and now is given.
func (s *sights) of(response *v1alpha1.EventResponse, now time.Time) (seen *sight, first bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if seen := s.seen[response.Name]; seen != nil && seen.uid == response.UID {
		return seen, false
	}
	if made := response.CreationTimestamp.Time; made.After(now) {
		now = made
	}
	seen = &sight{uid: response.UID}
	if response.Spec.Deadline != nil {
		seen.ends = time.Now().Add(response.Spec.Deadline.Sub(now))
	}
	if s.seen == nil {
		s.seen = map[string]*sight{}
	}
	s.seen[response.Name] = seen
	return seen, response.Status.StartedAt == nil
}

// forget an order that is closed, or gone.
func (s *sights) forget(name string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.seen, name)
}
