package consumer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// metrics counts what the consumers of a node do, by consumer.
type metrics struct {
	records, failures, panics, gaps *prometheus.CounterVec
}

func newMetrics(s *Set, reg prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hubbub", Subsystem: "consumer", Name: name, Help: help}, []string{"consumer"})
		if reg != nil {
			reg.MustRegister(c)
		}
		return c
	}
	m := &metrics{
		records:  counter("records_total", "Log records handled."),
		failures: counter("failures_total", "Batches that have to be handled again, and other delays."),
		panics:   counter("panics_total", "Calls of a handler that panicked; each is a bug."),
		gaps:     counter("missed_total", "Parts of the log that were trimmed before they were handled."),
	}
	if reg != nil {
		reg.MustRegister(&lagCollector{set: s})
	}
	return m
}

// begin shows the counters of a consumer at zero: one that appears with its first
// count looks to Prometheus as if nothing had been counted.
func (m *metrics) begin(name string) {
	for _, c := range []*prometheus.CounterVec{m.records, m.failures, m.panics, m.gaps} {
		c.WithLabelValues(name)
	}
}

func (m *metrics) handled(name string, n int) { m.records.WithLabelValues(name).Add(float64(n)) }
func (m *metrics) failed(name string)         { m.failures.WithLabelValues(name).Inc() }
func (m *metrics) panicked(name string)       { m.panics.WithLabelValues(name).Inc() }
func (m *metrics) missed(name string)         { m.gaps.WithLabelValues(name).Inc() }

// lagCollector asks the followers when it is asked itself.
type lagCollector struct{ set *Set }

var (
	lagPositions = prometheus.NewDesc("hubbub_consumer_lag_positions", "Log records of this node's partitions that are not handled yet.", []string{"consumer"}, nil)
	lagSeconds   = prometheus.NewDesc("hubbub_consumer_lag_seconds", "How long ago everything committed then has been handled, of the partition that is furthest behind.", []string{"consumer"}, nil)
)

var _ prometheus.Collector = (*lagCollector)(nil)

// Describe implements prometheus.Collector.
func (c *lagCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- lagPositions
	ch <- lagSeconds
}

// Collect implements prometheus.Collector.
func (c *lagCollector) Collect(ch chan<- prometheus.Metric) {
	for name, l := range c.set.lags() {
		ch <- prometheus.MustNewConstMetric(lagPositions, prometheus.GaugeValue, float64(l.positions), name)
		ch <- prometheus.MustNewConstMetric(lagSeconds, prometheus.GaugeValue, l.age.Seconds(), name)
	}
}

// lag is how far a consumer is behind.
type lag struct {
	positions ids.Seq
	age       time.Duration
}

func (s *Set) lags() map[string]lag {
	now := s.opts.Clock.Now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make(map[string]lag, len(s.mu.consumers))
	for name, r := range s.mu.consumers {
		var l lag
		for p, f := range r.byPart {
			if s.mu.owned[p] != f.epoch {
				continue
			}
			n, age := f.lag(now)
			l.positions += n
			l.age = max(l.age, age)
		}
		out[name] = l
	}
	return out
}
