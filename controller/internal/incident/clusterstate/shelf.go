package clusterstate

import (
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ugallu.io/forensics/api/v1alpha1"
)

// maxShelved bytes wait for the store; a state is some 20 kB, so that 1,600 incidents fit. Another one is read again.
const maxShelved = 32 << 20

// taken is a state that was read and is to be stored.
type taken struct {
	at        metav1.MicroTime
	documents int64
	gaps      []v1alpha1.GapCount
	// stored are the bytes to store; plain describes what was encrypted into them.
	stored []byte
	plain  *v1alpha1.PlainContent
}

// shelf keeps states that the store did not take yet.
type shelf struct {
	mutex   sync.Mutex
	waiting map[string]taken
	size    int
}

func (s *shelf) get(incident string) (taken, bool) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found, ok := s.waiting[incident]
	return found, ok
}

func (s *shelf) put(incident string, state taken) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.size+len(state.stored) > maxShelved {
		return
	}
	if s.waiting == nil {
		s.waiting = map[string]taken{}
	}
	s.size += len(state.stored) - len(s.waiting[incident].stored)
	s.waiting[incident] = state
}

func (s *shelf) drop(incident string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.size -= len(s.waiting[incident].stored)
	delete(s.waiting, incident)
}
