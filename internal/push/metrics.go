package push

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/obs"
)

// metrics counts what is sent.
type metrics struct {
	pushes  *prometheus.CounterVec
	latency prometheus.Histogram
}

func newMetrics(d *sender, reg prometheus.Registerer) *metrics {
	m := &metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: obs.Namespace, Subsystem: "push", Name: "requests_total",
			Help: "Requests to push gateways: sent, failed (tried again later), refused (given up), rejected (the pusher was removed).",
		}, []string{"result"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: obs.Namespace, Subsystem: "push", Name: "request_seconds",
			Help: "How long push gateways take to answer.", Buckets: obs.LatencyBuckets(),
		}),
	}
	// Shown at zero: a counter that appears with its first count looks to Prometheus
	// as if nothing had been counted.
	for _, v := range []verdict{verdictSent, verdictGone, verdictRefused, verdictLater} {
		m.pushes.WithLabelValues(string(v))
	}
	if reg != nil {
		reg.MustRegister(m.pushes, m.latency, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: obs.Namespace, Subsystem: "push", Name: "waiting_pushers",
			Help: "Pushers that have something to be sent.",
		}, func() float64 { return float64(d.waiting()) }))
	}
	return m
}

func (m *metrics) sent(v verdict, took time.Duration) {
	m.pushes.WithLabelValues(string(v)).Inc()
	m.latency.Observe(took.Seconds())
}
