package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Report is what a run of the load generator found; --json writes it.
type Report struct {
	Time    time.Time `json:"time"`
	Go      string    `json:"go"`
	CPUs    int       `json:"cpus"`
	OS      string    `json:"os"`
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	// Server is the address, or "child" for a server of the run's own.
	Server  string   `json:"server"`
	Results []Result `json:"results"`
}

// Result is what one scenario found.
type Result struct {
	Scenario   string         `json:"scenario"`
	Parameters map[string]any `json:"parameters"`
	Figures    []Figure       `json:"figures"`
	Checked    Checked        `json:"checked"`
	// Errors are failed requests and lost sockets, by kind.
	Errors map[string]int64 `json:"errors"`
	// Faults are broken promises, by kind; FaultTexts describes the first.
	Faults     map[string]int `json:"faults"`
	FaultTexts []string       `json:"fault_texts,omitempty"`
}

// Checked says how much was compared.
type Checked struct {
	Acked     int64 `json:"acked"`
	Refused   int64 `json:"refused"`
	Unknown   int64 `json:"unknown"`
	Delivered int64 `json:"delivered"`
	// Skipped deliveries were left out by limited timelines.
	Skipped int64 `json:"skipped"`
}

// Figure is one measured value.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Goal  *Goal   `json:"goal,omitempty"`
}

// Goal is what a figure should be at least, or at most.
type Goal struct {
	Bound float64 `json:"bound"`
	// AtLeast: the figure should not be below the bound, else not above it.
	AtLeast bool `json:"at_least"`
	Met     bool `json:"met"`
}

// add appends a figure.
func (r *Result) add(name string, value float64, unit string) *Figure {
	r.Figures = append(r.Figures, Figure{Name: name, Value: value, Unit: unit})
	return &r.Figures[len(r.Figures)-1]
}

// atLeast gives the figure a lower bound, if it is one that has a goal.
func (f *Figure) atLeast(has bool, bound float64) {
	if has {
		f.Goal = &Goal{Bound: bound, AtLeast: true, Met: f.Value >= bound}
	}
}

// atMost gives the figure an upper bound, if it is one that has a goal.
func (f *Figure) atMost(has bool, bound float64) {
	if has {
		f.Goal = &Goal{Bound: bound, Met: f.Value <= bound}
	}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// addLatency appends the usual quantiles; the returned figure is the 99th.
func (r *Result) addLatency(name string, h *Histogram) (p99 *Figure) {
	r.add(name+" p50", millis(h.Quantile(0.50)), "ms")
	r.add(name+" p95", millis(h.Quantile(0.95)), "ms")
	r.add(name+" p99", millis(h.Quantile(0.99)), "ms")
	at := len(r.Figures) - 1
	r.add(name+" max", millis(h.Max()), "ms")
	return &r.Figures[at]
}

// perSecond is a rate over a window.
func (w *window) perSecond(n int64) float64 { return float64(n) / w.elapsed.Seconds() }

// cpuEach is the server's CPU time for each of n, in microseconds.
func (w *window) cpuEach(n int64) float64 {
	if n == 0 {
		return 0
	}
	return micros(w.cpu) / float64(n)
}

// cores is a CPU time as a number of cores that were busy.
func (w *window) cores(d time.Duration) float64 { return d.Seconds() / w.elapsed.Seconds() }

// addCPU appends how busy server and client were.
func (r *Result) addCPU(prefix string, w *window) {
	r.add(prefix+"server CPU", w.cores(w.cpu), "cores")
	r.add(prefix+"load generator CPU", w.cores(w.clientCPU), "cores")
}

// failed reports whether a promise was broken.
func (r *Result) failed() bool { return len(r.Faults) > 0 }

// print writes a result for people.
func (r *Result) print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s", r.Scenario)
	for _, k := range slices.Sorted(maps.Keys(r.Parameters)) {
		fmt.Fprintf(&b, "  %s=%v", k, r.Parameters[k])
	}
	b.WriteByte('\n')
	for i := range r.Figures {
		f := &r.Figures[i]
		fmt.Fprintf(&b, "  %-36s %12s %-6s%s\n", f.Name, number(f.Value), f.Unit, f.Goal)
	}
	c := r.Checked
	if c != (Checked{}) {
		fmt.Fprintf(&b, "  checked: %d acknowledged, %d refused, %d without an answer, %d delivered, %d skipped\n",
			c.Acked, c.Refused, c.Unknown, c.Delivered, c.Skipped)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&b, "  errors: %d × %s\n", r.Errors[k], k)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Faults)) {
		fmt.Fprintf(&b, "  FAULT: %d × %s\n", r.Faults[k], k)
	}
	for _, t := range r.FaultTexts {
		fmt.Fprintf(&b, "    %s\n", t)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String is the goal with its verdict, "" for nil.
func (g *Goal) String() string {
	if g == nil {
		return ""
	}
	sign, verdict := "≤", "missed"
	if g.AtLeast {
		sign = "≥"
	}
	if g.Met {
		verdict = "met"
	}
	return fmt.Sprintf("goal %s %s: %s", sign, number(g.Bound), verdict)
}

// number is a value with three significant digits, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100 || v <= -100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}
