package api

import (
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/api/parking"
)

// unmatched is the route label of requests that have no route.
const unmatched = "unmatched"

// metrics are what an operator sees of the API. Labels come from the table of
// routes and never from a request, so that clients cannot add series.
type metrics struct {
	requests *prometheus.CounterVec
	latency  *prometheus.HistogramVec
	panics   prometheus.Counter
}

// endpointMetrics keeps the series of the common case, because looking labels up
// costs more than the rest of the dispatch.
type endpointMetrics struct {
	ok      atomic.Pointer[prometheus.Counter]
	latency atomic.Pointer[prometheus.Observer]
}

func newMetrics(reg prometheus.Registerer, f *inFlight, lot *parking.Lot) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hubbub_api_requests_total",
			Help: "Requests of the Client-Server API, over HTTP and sockets, by route and status.",
		}, []string{"method", "route", "status"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "hubbub_api_request_seconds",
			Help:    "Time from the first look at a request to its answer. Long polls include their wait.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 30},
		}, []string{"method", "route"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hubbub_api_panics_total",
			Help: "Requests that ended in a panic. Each is a bug.",
		}),
	}
	collectors := []prometheus.Collector{m.requests, m.latency, m.panics}
	for hold, name := range map[Hold]string{HoldShort: "short", HoldLong: "long", HoldTransfer: "transfer"} {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "hubbub_api_in_flight",
			Help:        "Requests that are being served, by how long they may take.",
			ConstLabels: prometheus.Labels{"hold": name},
		}, func() float64 { return float64(f.node[hold].Load()) }))
	}
	if lot != nil {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "hubbub_api_parked",
			Help: "Long polls among those in flight that wait without a goroutine.",
		}, func() float64 { return float64(lot.Waiting()) }))
	}
	var err error
	for _, c := range collectors {
		err = errors.Join(err, reg.Register(c))
	}
	return m, err
}

// observe counts a finished request.
func (m *metrics) observe(r *Request, status int, took time.Duration) {
	ep := r.endpoint
	if ep == nil {
		// The method is the client's invention here.
		m.requests.WithLabelValues("", unmatched, strconv.Itoa(status)).Inc()
		return
	}
	if status == http.StatusOK {
		counter := ep.metrics.ok.Load()
		if counter == nil {
			c := m.requests.WithLabelValues(ep.Method, ep.Path, "200")
			counter = &c
			ep.metrics.ok.Store(counter)
		}
		(*counter).Inc()
	} else {
		m.requests.WithLabelValues(ep.Method, ep.Path, strconv.Itoa(status)).Inc()
	}
	observer := ep.metrics.latency.Load()
	if observer == nil {
		o := m.latency.WithLabelValues(ep.Method, ep.Path)
		observer = &o
		ep.metrics.latency.Store(observer)
	}
	(*observer).Observe(took.Seconds())
}
