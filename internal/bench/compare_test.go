package bench

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ours := write("a.json", `{"server":"http://127.0.0.1:1","results":[
		{"scenario":"send-http-64","figures":[{"name":"sends","value":12000,"unit":"/s"},{"name":"only here","value":1,"unit":""}]},
		{"scenario":"idle","figures":[{"name":"RSS","value":1,"unit":"KiB"}]}]}`)
	theirs := write("b.json", `{"server":"http://127.0.0.1:2","results":[
		{"scenario":"send-http-64","figures":[{"name":"sends","value":300,"unit":"/s"}],"faults":{"lost":2},"errors":{"429":7}}]}`)
	other := write("c.json", `{"results":[{"scenario":"other","figures":[]}]}`)
	broken := write("d.json", `[`)

	var out bytes.Buffer
	if err := Main(t.Context(), []string{"compare", ours, theirs}, &out, &out); err != nil {
		t.Fatal(err)
	}
	var row []string
	for line := range strings.Lines(out.String()) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == "sends" {
			row = f
		}
	}
	if got := strings.Join(row, " "); got != "sends 12000 300 /s 0.03" {
		t.Errorf("row of sends: %q in\n%s", got, &out)
	}
	for _, want := range []string{"FAULT of B: 2 × lost", "errors of B: 7 × 429"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "only here") || strings.Contains(out.String(), "idle") {
		t.Errorf("what only one of them has was printed:\n%s", &out)
	}

	for _, words := range [][]string{{"compare", ours, other}, {"compare", ours, broken}, {"compare", ours}} {
		if err := Main(t.Context(), words, &out, &out); !errors.Is(err, ErrArgs) {
			t.Errorf("%q: %v", words, err)
		}
	}
	if err := Main(t.Context(), []string{"compare", ours, filepath.Join(dir, "none")}, &out, &out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
