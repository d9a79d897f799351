package app

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

//go:generate go test -run ^TestSpecStatus$ . -rewrite

var rewrite = flag.Bool("rewrite", false, "write the generated document anew")

const statusFile = "../../docs/SPEC-STATUS.md"

// endpoint is a row of testdata/endpoints.tsv: what the Client-Server API and its
// clients know.
type endpoint struct {
	method, path, operation, phase, notApplicable string
}

func endpoints(t *testing.T) []endpoint {
	t.Helper()
	raw, err := os.ReadFile("testdata/endpoints.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var out []endpoint
	for i, line := range strings.Split(strings.TrimSuffix(string(raw), "\n"), "\n") {
		f := strings.Split(line, "\t")
		if len(f) != 5 {
			t.Fatalf("line %d has %d fields", i+1, len(f))
		}
		if i > 0 {
			out = append(out, endpoint{f[0], f[1], f[2], f[3], f[4]})
		}
	}
	return out
}

var parameter = regexp.MustCompile(`\{[^}]*\}`)

// shape makes templates comparable: parameter names differ.
func shape(method, path string) string {
	path, _, _ = strings.Cut(path, "?")
	return method + " " + parameter.ReplaceAllString(strings.TrimSuffix(path, "/"), "{}")
}

// TestSpecStatus keeps docs/SPEC-STATUS.md true: it is made from the table of
// endpoints and the table of routes.
func TestSpecStatus(t *testing.T) {
	cfg := config.Default()
	cfg.Server.DataDir = t.TempDir()
	cfg.Server.Listen = []string{"127.0.0.1:0"}
	cfg.Server.MetricsListen = ""
	s, err := New(t.Context(), cfg, obs.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	got := statusDocument(endpoints(t), s.table)
	if *rewrite {
		if err := os.WriteFile(statusFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(statusFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/SPEC-STATUS.md is out of date; run make gen")
	}
}

func statusDocument(list []endpoint, routes []api.Route) []byte {
	have := make(map[string]bool)
	for i := range routes {
		for _, p := range append([]string{routes[i].Path}, routes[i].Also...) {
			have[shape(routes[i].Method, p)] = true
		}
	}
	known := make(map[string]bool)
	var rows bytes.Buffer
	done, todo, not := 0, 0, 0
	for _, e := range list {
		s, status := shape(e.method, e.path), ""
		known[s] = true
		switch {
		case have[s]:
			done, status = done+1, "done"
		case e.notApplicable != "":
			not, status = not+1, "not applicable: "+e.notApplicable
		default:
			todo, status = todo+1, "todo"
		}
		fmt.Fprintf(&rows, "| %s | `%s` | %s | %s |\n", e.method, strings.ReplaceAll(e.path, "|", "\\|"), e.phase, status)
	}
	var b bytes.Buffer
	b.WriteString("# What of the Client-Server API works\n\n")
	b.WriteString("Made by `make gen` from the table of routes; do not edit. A phase is the order in which endpoints are built: A to chat,\n")
	b.WriteString("B encryption, C sliding sync and OAuth, D push, E calls, search and the rest, F old or rare, X what makes no sense here.\n\n")
	fmt.Fprintf(&b, "%d done, %d todo, %d not applicable.\n\n", done, todo, not)
	b.WriteString("| method | path | phase | status |\n| --- | --- | --- | --- |\n")
	b.Write(rows.Bytes())
	b.WriteString("\n## Routes beside the specification\n\n| method | path |\n| --- | --- |\n")
	for i := range routes {
		if !known[shape(routes[i].Method, routes[i].Path)] {
			fmt.Fprintf(&b, "| %s | `%s` |\n", routes[i].Method, routes[i].Path)
		}
	}
	return b.Bytes()
}
