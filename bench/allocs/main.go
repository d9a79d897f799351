// Command allocs compares the allocations per operation of benchmarks with the
// bounds in a file, since unlike times they hardly vary. It reads what go test -bench
// -benchmem prints and fails if a benchmark allocates more than its bound, or
// did not run. With -write it writes the file anew.
//
//	go test -run '^$' -bench … -benchmem … | go run ./bench/allocs bench/allocs.tsv
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// slack is what a figure may exceed its bound by, in hundredths: goroutines that
// share work make it differ by a few in some tens.
const slack = 10

// processors is the suffix that go test adds to names.
var processors = regexp.MustCompile(`-\d+$`)

var (
	errMore  = errors.New("more allocations than bench/allocs.tsv allows; if they are worth it, run make allocs-write and say why")
	errInput = errors.New("not what go test -bench prints")
)

func main() {
	write := flag.Bool("write", false, "write the file instead of comparing with it")
	flag.Parse()
	if err := run(flag.Arg(0), *write, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
}

func run(file string, write bool, in io.Reader, out io.Writer) error {
	got, err := figures(in)
	if err != nil {
		return err
	}
	if write {
		return writeBounds(file, got)
	}
	bounds, err := readBounds(file)
	if err != nil {
		return err
	}
	failed := false
	for _, name := range slices.Sorted(maps.Keys(bounds)) {
		n, ran := got[name]
		verdict := "ok"
		switch bound := bounds[name]; {
		case !ran:
			verdict = "DID NOT RUN"
		case n > bound+bound*slack/100:
			verdict = "MORE"
		case n < bound-bound*slack/100:
			verdict = "fewer: lower the bound"
		}
		failed = failed || !ran || verdict == "MORE"
		fmt.Fprintf(out, "%-44s %6d of %6d  %s\n", name, n, bounds[name], verdict)
	}
	if failed {
		return errMore
	}
	return nil
}

// figures reads the allocations per operation of each benchmark.
func figures(in io.Reader) (map[string]int, error) {
	got := make(map[string]int)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		at := slices.Index(f, "allocs/op")
		switch {
		case len(f) > 0 && (f[0] == "FAIL" || f[0] == "---"):
			return nil, fmt.Errorf("%w: %s", errInput, lines.Text())
		case at < 2 || !strings.HasPrefix(f[0], "Benchmark"):
			continue
		}
		n, err := strconv.Atoi(f[at-1])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errInput, err)
		}
		got[processors.ReplaceAllString(f[0], "")] = n
	}
	if len(got) == 0 {
		return nil, fmt.Errorf("%w: no benchmark in it", errInput)
	}
	return got, lines.Err()
}

func readBounds(file string) (map[string]int, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("bounds: %w", err)
	}
	bounds := make(map[string]int)
	for line := range strings.Lines(string(raw)) {
		name, n, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if bounds[name], err = strconv.Atoi(n); err != nil {
			return nil, fmt.Errorf("bounds: %q: %w", line, err)
		}
	}
	return bounds, nil
}

func writeBounds(file string, got map[string]int) error {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(got)) {
		fmt.Fprintf(&b, "%s\t%d\n", name, got[name])
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("bounds: %w", err)
	}
	return nil
}
