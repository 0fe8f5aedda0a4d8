package drop

import (
	"sync"

	"github.com/cilium/ebpf"
)

// spare keeps programs and maps for the next pod loaded: the verifier takes 3 ms, on a busy node thirty, in which the
// pod sends. They are those for a pod that is frozen, which nearly every pod is.
type spare struct {
	spec    *ebpf.CollectionSpec
	mutex   sync.Mutex
	ready   *ebpf.Collection
	loading bool
	closed  bool
	loads   sync.WaitGroup
}

func newSpare(spec *ebpf.CollectionSpec) *spare {
	return &spare{spec: programsFor(spec, false)}
}

// programsFor is a copy with the programs for a pod that runs, or for one that does not.
func programsFor(spec *ebpf.CollectionSpec, running bool) *ebpf.CollectionSpec {
	chosen := spec.Copy()
	for name := range chosen.Programs {
		if forRunning(name) != running {
			delete(chosen.Programs, name)
		}
	}
	return chosen
}

// take returns what is loaded, or nil. It is the caller's to close.
func (s *spare) take() *ebpf.Collection {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	taken := s.ready
	s.ready = nil
	return taken
}

// fill loads another beside what comes next. Where that fails there is none, and the next pod's own load says why.
func (s *spare) fill() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.ready != nil || s.loading || s.closed {
		return
	}
	s.loading = true
	s.loads.Go(func() {
		loaded, err := ebpf.NewCollection(s.spec.Copy())
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.loading = false
		if err == nil {
			s.ready = loaded
		}
	})
}

func (s *spare) close() {
	s.mutex.Lock()
	s.closed = true
	s.mutex.Unlock()
	s.loads.Wait()
	if left := s.take(); left != nil {
		left.Close()
	}
}
