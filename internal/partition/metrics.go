package partition

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the owners of a node do. A nil Metrics counts nothing.
type Metrics struct {
	batches, commands, overloads, panics, badEffects, unread prometheus.Counter
	batchSize                                                prometheus.Histogram
}

// NewMetrics registers the metrics of the owners of a node.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hubbub", Subsystem: "partition", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		batches:    counter("batches_total", "Batches committed."),
		commands:   counter("commands_total", "Commands in committed batches."),
		overloads:  counter("overloads_total", "Commands refused because the queue was full."),
		panics:     counter("panics_total", "Commands that panicked; each is a bug."),
		badEffects: counter("bad_effects_total", "Effects that could not be applied; each is a bug."),
		unread:     counter("log_trimmed_unread_total", "Times the log was trimmed before a consumer had handled it."),
		batchSize: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "hubbub", Subsystem: "partition", Name: "batch_commands",
			Help: "Commands in one batch.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
	}
	reg.MustRegister(m.batchSize)
	return m
}

func (m *Metrics) batch(commands int) {
	if m != nil {
		m.batches.Inc()
		m.commands.Add(float64(commands))
		m.batchSize.Observe(float64(commands))
	}
}

func (m *Metrics) overload() {
	if m != nil {
		m.overloads.Inc()
	}
}

func (m *Metrics) panicked() {
	if m != nil {
		m.panics.Inc()
	}
}

func (m *Metrics) badEffect() {
	if m != nil {
		m.badEffects.Inc()
	}
}

func (m *Metrics) trimmedUnread() {
	if m != nil {
		m.unread.Inc()
	}
}
