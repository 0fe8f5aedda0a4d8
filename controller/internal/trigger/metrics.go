package trigger

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var (
	misses = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "forensics_trigger_misses_total",
		Help: "Events that open no incident, by reason; an event that waits for its seal counts once as not_attested.",
	}, []string{"reason"})
	opened = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "forensics_incidents_opened_total",
		Help: "Incidents opened.",
	})
	overdueEvents = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "forensics_trigger_attestation_overdue",
		Help: "Events that match in every other respect and wait for their seal longer than they should.",
	})
)

// RegisterMetrics makes the package's metrics visible on the process's endpoint.
func RegisterMetrics() error {
	for _, collector := range []prometheus.Collector{misses, opened, overdueEvents} {
		if err := metrics.Registry.Register(collector); err != nil {
			return err
		}
	}
	return nil
}

// overdueSet backs the gauge. It is rebuilt by the first round of reconciles after a restart.
type overdueSet struct {
	mutex sync.Mutex
	names map[string]struct{}
}

func (s *overdueSet) add(name string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.names == nil {
		s.names = map[string]struct{}{}
	}
	s.names[name] = struct{}{}
	overdueEvents.Set(float64(len(s.names)))
}

func (s *overdueSet) remove(name string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	delete(s.names, name)
	overdueEvents.Set(float64(len(s.names)))
}
