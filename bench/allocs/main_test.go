package main

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

const printed = `goos: linux
BenchmarkSend/memory/senders=1-2   300   32471 ns/op   17153 cpu-ns/op   4680 B/op   43 allocs/op
BenchmarkRouter/send-16            300     231 ns/op       0 B/op         0 allocs/op
ok  	example	3.968s
`

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "allocs.tsv")
	var out bytes.Buffer
	if err := run(file, true, strings.NewReader(printed), &out); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, in string
		err      error
	}{
		{"the same", printed, nil},
		{"one more of many", strings.Replace(printed, "43 allocs", "44 allocs", 1), nil},
		{"fewer", strings.Replace(printed, "43 allocs", "30 allocs", 1), nil},
		{"more", strings.Replace(printed, "43 allocs", "48 allocs", 1), errMore},
		{"one instead of none", strings.Replace(printed, "0 allocs", "1 allocs", 1), errMore},
		{"one did not run", strings.Replace(printed, "BenchmarkRouter", "BenchmarkOther", 1), errMore},
		{"a failure", printed + "FAIL\texample\n", errInput},
		{"nothing", "", errInput},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := run(file, false, strings.NewReader(tt.in), &out); !errors.Is(err, tt.err) {
				t.Errorf("%v, not %v", err, tt.err)
			}
		})
	}
}
