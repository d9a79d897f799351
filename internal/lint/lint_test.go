package lint

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
)

// TestTree runs every rule over this repository.
func TestTree(t *testing.T) {
	tree, err := Load("../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.Go) < 20 || len(tree.Docs) == 0 {
		t.Fatalf("only %d Go files and %d documents: this is not the repository", len(tree.Go), len(tree.Docs))
	}
	for name, rule := range map[string]func(*Tree) []Finding{
		"Layers": Layers, "Sizes": Sizes, "Names": Names, "Calls": Calls, "Comments": Comments, "Skips": Skips, "Docs": Docs,
	} {
		t.Run(name, func(t *testing.T) {
			for _, f := range rule(tree) {
				t.Error(f)
			}
		})
	}
}

// small builds a tree of files.
func small(t *testing.T, files map[string]string) *Tree {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tree, err := LoadFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// expect checks that there is one finding for each of want, in order, each with
// that text in it.
func expect(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d findings, want %d: %v", len(got), len(want), got)
	}
	for i, w := range want {
		if !strings.Contains(got[i].String(), w) {
			t.Errorf("finding %q does not say %q", got[i], w)
		}
	}
}

func TestMayNot(t *testing.T) {
	ours := func(p string) string { return Module + "/" + p }
	tests := []struct {
		from, to string
		ok       bool
	}{
		{"internal/event", ours("internal/ids"), true},
		{"internal/ids", ours("internal/event"), false},
		{"internal/roomstate", ours("internal/event"), true},
		{"internal/event", ours("internal/roomstate"), false},
		{"internal/roomstate", ours("internal/storage"), false},
		{"internal/roomstate", "time", false},
		{"internal/roomstate", "net", false},
		{"internal/pushrules", "crypto/rand", false},
		{"internal/roomstate", "strings", true},
		{"internal/merr", "net/http", true},
		{"internal/storage/pebblestore", ours("internal/storage"), true},
		{"internal/storage", ours("internal/storage/pebblestore"), false},
		{"internal/storage/pebblestore", ours("internal/storage/memstore"), false},
		{"internal/storage/storagetest", ours("internal/storage/memstore"), true},
		{"internal/storage/storagetest", ours("internal/storage/faultstore"), true},
		{"internal/storage/pebblestore", ours("internal/storage/storagetest"), false},
		{"internal/storage/pebblestore", ours("internal/partition"), false},
		{"internal/storage/pebblestore", "github.com/cockroachdb/pebble/v2", true},
		{"internal/partition", "github.com/cockroachdb/pebble/v2", false},
		{"internal/partition", "github.com/cockroachdb/pebble/v2/vfs", false},
		{"internal/partition", ours("internal/storage"), true},
		{"internal/partition", ours("internal/storage/pebblestore"), false},
		{"internal/partition", ours("internal/bus/membus"), false},
		{"internal/cluster", ours("internal/partition"), true},
		{"internal/partition", ours("internal/cluster"), false},
		{"internal/partition", ours("internal/config"), false},
		{"internal/partition", ours("internal/obs"), true},
		{"internal/roomstate", ours("internal/obs"), false},
		{"internal/feed", ours("internal/room"), true},
		{"internal/room", ours("internal/api"), false},
		{"internal/api/rooms", ours("internal/api"), true},
		{"internal/api", ours("internal/api/rooms"), true},
		{"internal/api/rooms", ours("internal/api/sync"), false},
		{"internal/api/rooms", ours("internal/app"), false},
		{"internal/api/rooms", ours("internal/config"), true},
		{"internal/gateway", ours("internal/api"), true},
		{"internal/gateway", ours("internal/gateway/wire"), true},
		{"internal/gateway", ours("internal/api/rooms"), true},
		{"internal/gateway", "github.com/gobwas/ws", true},
		{"internal/api", "github.com/gobwas/ws", false},
		{"internal/app", ours("internal/storage/pebblestore"), true},
		{"internal/app", ours("internal/storage/faultstore"), false},
		{"internal/app", ours("internal/api/rooms"), true},
		{"internal/app", ours("web"), true},
		{"internal/gateway", ours("web"), false},
		{"internal/wsclient", ours("internal/gateway/wire"), true},
		{"internal/wsclient", ours("internal/gateway"), false},
		{"internal/bench", ours("internal/wsclient"), true},
		{"internal/bench", ours("internal/partition"), false},
		{"internal/api", ours("internal/wsclient"), false},
		{"internal/obs", ours("internal/ids"), true},
		{"internal/obs", ours("internal/storage"), false},
		{"cmd/hubbub", ours("internal/app"), true},
		{"cmd/hubbub", ours("internal/bench"), true},
		{"cmd/hubbub", ours("internal/partition"), false},
		{"internal/app", ours("internal/lint/skip"), false},
		{"internal/app", "github.com/alecthomas/kong", false},
		{"internal/sim", ours("internal/partition"), true},
		{"internal/sim", ours("internal/storage/memstore"), true},
		{"internal/partition", ours("internal/sim"), false},
	}
	for _, tt := range tests {
		if why := mayNot(tt.from, tt.to); (why == "") != tt.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", tt.from, tt.to, why, tt.ok)
		}
	}
}

func TestLayers(t *testing.T) {
	tree := small(t, map[string]string{
		"internal/roomstate/a.go":      "package roomstate\nimport _ \"" + Module + "/internal/storage\"\n",
		"internal/roomstate/a_test.go": "package roomstate\nimport _ \"" + Module + "/internal/storage/memstore\"\n",
		"internal/stranger/a.go":       "package stranger\n",
		"internal/ids/a.go":            "package ids\nimport _ \"fmt\"\n",
	})
	expect(t, Layers(tree),
		"internal/roomstate/a.go:2: internal/roomstate may not import internal/storage because",
		"internal/stranger: the layer table does not know")
}

func lines(n int) string { return strings.Repeat("\n", n) }

func TestSizes(t *testing.T) {
	function := func(name string, n int) string {
		return fmt.Sprintf("func %s() {%s}\n", name, lines(n-1))
	}
	var fields strings.Builder
	for i := range 20 {
		fmt.Fprintf(&fields, "a%d, b%d int\n", i/2, i)
	}
	tree := small(t, map[string]string{
		"internal/a/ok.go":       "package a\n" + function("f", 70) + "type T struct { a, b int; c string }\n",
		"internal/a/long.go":     "package a\n" + function("g", 71) + "func (*T) m() {" + lines(90) + "}\n",
		"internal/a/file.go":     "package a\n" + lines(800),
		"internal/a/s.go":        "package a\ntype S struct { mu struct {\n" + fields.String() + "} }\n",
		"internal/a/x_test.go":   "package a\n" + function("h", 150) + function("i", 151),
		"internal/a/gen.go":      "// Code generated by x. DO NOT EDIT.\n\npackage a\n" + function("j", 900),
		"web/src/a.ts":           lines(801),
		"web/node_modules/a.ts":  lines(9000),
		"web/dist/a.js":          lines(9000),
		"internal/a/testdata/a":  "",
		"internal/a/testdata.go": "package a\n",
	})
	want := []string{
		"internal/a/file.go: internal/a/file.go has 801 lines",
		"internal/a.g has 71 lines",
		"internal/a.T.m has 91 lines",
		"internal/a.S has 40 fields",
		"internal/a.i has 151 lines",
		"web/src/a.ts has 801 lines",
	}
	expect(t, sizes(tree, nil), want...)

	allowed := []Allowance{{"internal/a.g", 71}, {"internal/a.T.m", 95}, {"internal/a.S", 39}, {"internal/a.f", 75}, {"internal/a.gone", 99}}
	expect(t, sizes(tree, allowed),
		"internal/a/file.go", "internal/a.T.m has shrunk to 91 lines", "internal/a.S has 40 fields, the limit is 39", "internal/a.i",
		"internal/a.f needs no allowance", "internal/a.gone needs no allowance", "web/src/a.ts")
}

func TestNames(t *testing.T) {
	tree := small(t, map[string]string{
		"internal/a/doc.go":    "// Package a is good.\npackage a\n",
		"internal/a/b.go":      "package a\n",
		"internal/util/a.go":   "// Package util is anything.\npackage util\n",
		"internal/b/b.go":      "package b\n",
		"internal/b/b_test.go": "// Package b is tested.\npackage b\n",
	})
	expect(t, Names(tree), "internal/b/b.go: the package has no comment", "internal/util/a.go: a package is named for")
}

func TestCalls(t *testing.T) {
	body := func(pkg, imports, stmts string) string {
		return "package " + pkg + "\nimport (\n" + imports + "\n)\nfunc f() {\n" + stmts + "\n}\n"
	}
	tree := small(t, map[string]string{
		"internal/a/init.go":      "package a\nfunc init() {}\ntype T int\nfunc (T) init() {}\n",
		"internal/a/init_test.go": "package a\nfunc init() {}\n",
		"internal/a/rand.go":      "package a\nimport r \"math/rand/v2\"\nvar _ = r.Int\n",
		"internal/a/rand_test.go": "package a\nimport r \"math/rand\"\nvar _ = r.Int\n",
		"internal/bench/rand.go":  "package bench\nimport r \"math/rand\"\nvar _ = r.Int\n",
		"internal/a/print.go":     body("a", `"fmt"; "io"`, "fmt.Println(1)\nfmt.Fprintln(io.Discard)\nprintln(2)"),
		"internal/a/alias.go":     body("a", `format "fmt"`, "format.Printf(\"\")"),
		"internal/a/x_test.go":    body("a", `"fmt"; "os"`, "fmt.Println(1); os.Exit(1)"),
		"cmd/x/main.go":           body("main", `"fmt"; "os"`, "fmt.Println(1); os.Exit(1)"),
		"internal/a/exit.go":      body("a", `"os"; "log"`, "os.Exit(1)\nlog.Printf(\"\")\nos.Getpid()"),
		"internal/a/http.go":      body("a", `"net/http"`, "http.HandleFunc(\"\", nil)\nvar m http.ServeMux\nm.HandleFunc(\"\", nil)\nhttp.ListenAndServeTLS(\"\", \"\", \"\", nil)"),
	})
	pureTree := small(t, map[string]string{
		"internal/roomstate/a.go": body("roomstate", `"net/http"`, "_ = http.StatusOK\n_ = http.DefaultClient"),
	})
	expect(t, Calls(pureTree), "internal/roomstate/a.go:7: http.DefaultClient")
	expect(t, Calls(tree),
		"internal/a/alias.go:6: format.Printf",
		"internal/a/exit.go:6: os.Exit", "internal/a/exit.go:7: log.Printf",
		"internal/a/http.go:6: http.HandleFunc", "internal/a/http.go:9: http.ListenAndServeTLS",
		"internal/a/init.go:2: init", "internal/a/init_test.go:2: init",
		"internal/a/print.go:6: fmt.Println", "internal/a/print.go:8: println",
		"internal/a/rand.go:2: math/rand")
}

// TestSQL: a statement may be put together of constants, and of nothing else.
func TestSQL(t *testing.T) {
	head := "package a\nimport \"github.com/jackc/pgx/v5\"\nconst one = \"SELECT 1\"\nfunc f(c *pgx.Conn, b *pgx.Batch, name string) {\nconst two = \" WHERE $1\"\n"
	tree := small(t, map[string]string{
		"internal/a/good.go":   head + "c.Exec(ctx, one+two, name)\nc.Query(ctx, `SELECT 2`)\nb.Queue((one))\nc.Query(ctx)\n}\n",
		"internal/a/bad.go":    head + "c.Exec(ctx, one+name)\nc.QueryRow(ctx, fmt.Sprintf(one, name))\nb.Queue(name)\nc.Query(ctx, (one + (two + name)))\n}\n",
		"internal/a/var.go":    head + "statement := one\nstatement = one + name\nc.Query(ctx, statement)\nrun(c, one)\nrun(c, name)\n}\nfunc run(c *pgx.Conn, statement string) { c.Query(ctx, statement) }\n",
		"internal/a/a_test.go": head + "c.Exec(ctx, name)\n}\n",
		"internal/b/url.go":    "package b\nfunc f(u U) { u.Query(1, name); u.Exec(ctx, name) }\n",
	})
	expect(t, madeSQL(tree), "internal/a/bad.go:6: SQL", "internal/a/bad.go:7: SQL", "internal/a/bad.go:8: SQL", "internal/a/bad.go:9: SQL",
		"internal/a/var.go:7: SQL", "internal/a/var.go:10: SQL")
}

func TestComments(t *testing.T) {
	mark := "TO" + "DO"
	tree := small(t, map[string]string{
		"internal/a/a.go": "package a\n\n// " + mark + ": finish\n\n// A" + mark + "B is a word, context." + mark + " is not in a comment\nvar s = \"" + mark + "\"\n",
		"web/src/a.ts":    "const a = '" + mark + "';\n/*\n * FIX" + "ME\n */\nf(); // XX" + "X here\n",
	})
	got := Comments(tree)
	// The second comment names the mark after a dot: still the mark.
	expect(t, got, "internal/a/a.go:3", "internal/a/a.go:5", "web/src/a.ts:3", "web/src/a.ts:5")
}

func TestSkips(t *testing.T) {
	tree := small(t, map[string]string{
		"internal/a/a_test.go": `package a
func A(t *testing.T) { t.Skip("x") }
func B(b testing.TB) { func() { b.SkipNow() }() }
func C(t *testing.T) { rapid.Check(t, func(t *rapid.T) { t.Skip("drawn") }) }
func D(f *testing.F) { f.Fuzz(func(t *testing.T, s string) { t.Skipf("y") }) }
func E(d *jsontext.Decoder) { d.Skip() }
`,
		"internal/lint/skip/skip.go": "package skip\nfunc Test(t testing.TB) { t.Skip() }\n",
	})
	expect(t, Skips(tree), "a_test.go:2", "a_test.go:3", "a_test.go:5")
}

func TestDocs(t *testing.T) {
	tree := small(t, map[string]string{
		"internal/a/a.go":        "package a\n",
		"docs/x.md":              "See [y](y.md#part), [z](../README.md), [web](https://a/b), `internal/a`, `internal/gone.go:12`.\n",
		"docs/adr/1.md":          "[up](../x.md) [down](x.md) `go test ./internal/a/... ./internal/none/...` `/internal/a` `internal/*` `GET /docs/q`\n",
		"README.md":              "internal/prose is not code\n```\nmake run\ngo test ./internal/fenced  # internal/comment\n```\n`web/dist/app.js` `Makefile` `cmd`\n",
		"internal/a/README.md":   "`internal/unchecked`\n",
		"web/src/styles/app.css": "",
	})
	expect(t, Docs(tree),
		"README.md:4: internal/fenced does not exist", "README.md:6: Makefile does not exist",
		"docs/adr/1.md:1: docs/adr/x.md", "docs/adr/1.md:1: internal/none",
		"docs/x.md:1: docs/y.md", "docs/x.md:1: internal/gone.go")
}

func TestLoadRefusesBrokenSource(t *testing.T) {
	if _, err := LoadFS(fstest.MapFS{"a.go": {Data: []byte("package")}}); err == nil {
		t.Error("no error for a file that does not parse")
	}
}
