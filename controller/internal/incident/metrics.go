package incident

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

var transitions = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "forensics_incident_transitions_total",
	Help: "Conditions of incidents that turned, by type, status and reason.",
}, []string{"condition", "status", "reason"})

// RegisterMetrics makes the package's metrics visible on the process's endpoint.
func RegisterMetrics() error { return metrics.Registry.Register(transitions) }
