package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
	"github.com/hubbub-chat/hubbub/internal/idleread"
)

// metrics are the gateway's, all under hubbub_gateway_.
type metrics struct {
	sockets prometheus.Gauge
	frames  prometheus.Counter
	bytes   prometheus.Counter
	writes  prometheus.Counter
	refused prometheus.Counter
	panics  prometheus.Counter
	closes  *prometheus.CounterVec
	calls   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, poller *idleread.Poller) *metrics {
	if reg == nil {
		reg = prometheus.NewRegistry()
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "hubbub", Subsystem: "gateway", Name: name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "hubbub", Subsystem: "gateway", Name: name, Help: help}, []string{label})
	}
	m := &metrics{
		sockets: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "hubbub", Subsystem: "gateway", Name: "sockets", Help: "Open sockets.",
		}),
		frames:  counter("frames_sent_total", "Frames sent to sockets."),
		bytes:   counter("bytes_sent_total", "Bytes written to sockets."),
		writes:  counter("writes_total", "Write system calls; frames per write shows how well they are gathered."),
		refused: counter("frames_refused_total", "Sync frames refused because a socket's queue was full."),
		panics:  counter("panics_total", "Panics while serving sockets; each is a defect."),
		closes:  vec("closes_total", "Sockets closed, by close code.", "code"),
		calls:   vec("calls_total", "Calls answered, by class of status.", "status"),
	}
	parked := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "hubbub", Subsystem: "gateway", Name: "sockets_parked", Help: "Quiet sockets, which wait without a goroutine.",
	}, func() float64 { return float64(poller.Waiting()) })
	reg.MustRegister(parked, m.sockets, m.frames, m.bytes, m.writes, m.refused, m.panics, m.closes, m.calls)
	return m
}

func (m *metrics) wrote(frames, bytes, writes int) {
	m.frames.Add(float64(frames))
	m.bytes.Add(float64(bytes))
	m.writes.Add(float64(writes))
}

// closed counts a close. A client chooses its code: those that are not ours
// share a label.
func (m *metrics) closed(code int) {
	label := "other"
	switch code {
	case wire.CloseNormal, wire.CloseGoingAway, wire.CloseProtocol, wire.CloseAbnormal, wire.CloseBadUTF8,
		wire.CloseTooLarge, wire.CloseMalformed, wire.CloseUnauthorized, wire.CloseForbidden, wire.CloseTimeout,
		wire.CloseUnknownPos, wire.CloseTooMany, wire.CloseInternal, wire.CloseUnavailable:
		label = strconv.Itoa(code)
	}
	m.closes.WithLabelValues(label).Inc()
}

func (m *metrics) called(status int) {
	m.calls.WithLabelValues(strconv.Itoa(status/100) + "xx").Inc()
}
