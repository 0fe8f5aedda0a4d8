package order

import "sync"

// running counts the captures of each incident that run in this process: a pod is not let go while its files are read.
// After a restart none runs.
type running struct {
	mutex  sync.Mutex
	counts map[string]int
}

func newRunning() *running { return &running{counts: map[string]int{}} }

func (r *running) begin(incidentUID string) (end func()) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.counts[incidentUID]++
	return func() {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		if r.counts[incidentUID]--; r.counts[incidentUID] == 0 {
			delete(r.counts, incidentUID)
		}
	}
}

func (r *running) has(incidentUID string) bool {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return r.counts[incidentUID] > 0
}
