package order

import (
	"github.com/prometheus/client_golang/prometheus"

	"ugallu.io/forensics/api/v1alpha1"
)

type metrics struct {
	orders   *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "forensics_nodeagent_orders_total",
			Help: "Orders closed, by action and phase.",
		}, []string{"action", "phase"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "forensics_nodeagent_order_seconds",
			Help:    "Time from taking an order to closing it, by action.",
			Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600},
		}, []string{"action"}),
	}
	for _, collector := range []prometheus.Collector{m.orders, m.duration} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) observe(response *v1alpha1.EventResponse) {
	action, status := string(response.Spec.Action.Type), response.Status
	m.orders.WithLabelValues(action, string(status.Phase)).Inc()
	if status.StartedAt != nil && status.CompletedAt != nil {
		m.duration.WithLabelValues(action).Observe(status.CompletedAt.Sub(status.StartedAt.Time).Seconds())
	}
}
