package bench

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
)

// compare prints two reports side by side: each figure that both have, and how
// many times the first server's the other's is.
func (a *compareArgs) compare(w io.Writer) error {
	one, err := readReport(a.One)
	if err != nil {
		return err
	}
	other, err := readReport(a.Other)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "A: %s, %s\nB: %s, %s\n", a.One, one.Server, a.Other, other.Server)
	found := false
	for i := range one.Results {
		r := &one.Results[i]
		for j := range other.Results {
			if other.Results[j].Scenario == r.Scenario {
				found = sideBySide(&b, r, &other.Results[j]) || found
			}
		}
	}
	if !found {
		return fmt.Errorf("%w: %s and %s have no scenario in common", ErrArgs, a.One, a.Other)
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// sideBySide writes what two results of one scenario found, and reports whether
// they have anything in common.
func sideBySide(b *strings.Builder, one, other *Result) (found bool) {
	fmt.Fprintf(b, "\n%-38s %12s %12s %-6s %8s\n", one.Scenario, "A", "B", "", "B / A")
	for i := range one.Figures {
		f := &one.Figures[i]
		for j := range other.Figures {
			g := &other.Figures[j]
			if g.Name != f.Name || g.Unit != f.Unit {
				continue
			}
			ratio := "-"
			if f.Value != 0 {
				ratio = number(g.Value / f.Value)
			}
			fmt.Fprintf(b, "  %-36s %12s %12s %-6s %8s\n", f.Name, number(f.Value), number(g.Value), f.Unit, ratio)
			found = true
		}
	}
	for _, r := range []*Result{one, other} {
		which := "A"
		if r == other {
			which = "B"
		}
		for kind, n := range r.Faults {
			fmt.Fprintf(b, "  FAULT of %s: %d × %s\n", which, n, kind)
		}
		for kind, n := range r.Errors {
			fmt.Fprintf(b, "  errors of %s: %d × %s\n", which, n, kind)
		}
	}
	return found
}

func readReport(file string) (*Report, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	r := new(Report)
	if err := json.Unmarshal(raw, r); err != nil {
		return nil, fmt.Errorf("%w: %s is no report of --json: %w", ErrArgs, file, err)
	}
	return r, nil
}
