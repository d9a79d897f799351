package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names checks that no package is named for a drawer, and that each says what it
// is for.
func Names(t *Tree) []Finding {
	var found []Finding
	documented, first := map[string]bool{}, map[string]string{}
	for _, f := range t.Go {
		if f.Test {
			continue
		}
		if _, seen := first[f.Pkg]; !seen {
			first[f.Pkg] = f.Path
		}
		documented[f.Pkg] = documented[f.Pkg] || f.AST.Doc != nil
		switch name := f.AST.Name.Name; name {
		case "util", "utils", "common", "helper", "helpers", "misc", "shared":
			found = append(found, Finding{f.Path, fmt.Sprintf("a package is named for what it provides, not %s: that name takes in anything", name)})
		}
	}
	for pkg, path := range first {
		if !documented[pkg] {
			found = append(found, Finding{path, "the package has no comment that says its purpose, its invariants and who may call it"})
		}
	}
	return inOrder(found)
}

// call is a function of the standard library that has no place in some package.
type call struct {
	// name is the selector as it is written; a trailing * stands for the rest.
	pkg, name string
	// in lists where it is allowed; tests are always.
	in  []string
	why string
}

func forbiddenCalls() []call {
	return []call{
		{"fmt", "Print*", []string{"cmd", "internal/bench"}, "a library does not write to standard output; return a value, or log with slog"},
		{"log", "*", nil, "the log is log/slog, with the logger that was handed down"},
		{"os", "Exit", []string{"cmd", "bench", "test/clients"}, "only a program ends the process, after everything was closed"},
		{"net/http", "Handle", nil, "the default mux is global, and other packages put debug handlers into it"},
		{"net/http", "HandleFunc", nil, "the default mux is global, and other packages put debug handlers into it"},
		{"net/http", "DefaultServeMux", nil, "the default mux is global, and other packages put debug handlers into it"},
		{"net/http", "ListenAndServe*", nil, "a server without timeouts can be held open by anyone; use http.Server"},
		{"github.com/prometheus/client_golang/prometheus", "MustRegister", nil, "the default registry is global; register with the one handed down"},
		{"github.com/prometheus/client_golang/prometheus", "Default*", nil, "the default registry is global; use the one handed down"},
	}
}

// Calls checks for init functions, weak randomness, and calls that belong
// elsewhere. Test files may do all but have an init function.
func Calls(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !f.Generated {
				found = append(found, Finding{t.at(fn.Pos()), "init runs before anyone can say with what; build it where it is used"})
			}
		}
		if f.Test {
			continue
		}
		found = append(found, weakRandomness(t, f)...)
		found = append(found, misplacedCalls(t, f)...)
	}
	return inOrder(append(found, madeSQL(t)...))
}

func weakRandomness(t *Tree, f *GoFile) []Finding {
	if testSupport(f.Pkg) || insideAny(f.Pkg, []string{"internal/bench", "internal/wsclient"}) {
		return nil // load generators: their choices guard nothing
	}
	var found []Finding
	for _, spec := range f.AST.Imports {
		if spec.Path.Value == `"math/rand"` || spec.Path.Value == `"math/rand/v2"` {
			found = append(found, Finding{t.at(spec.Pos()), "math/rand can be predicted; use crypto/rand, or take a source as an argument"})
		}
	}
	return found
}

func misplacedCalls(t *Tree, f *GoFile) []Finding {
	imported := importNames(f.AST)
	var found []Finding
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && imported[x.Name] != "" {
				if c := forbidden(f.Pkg, imported[x.Name], n.Sel.Name); c != nil {
					found = append(found, Finding{t.at(n.Pos()), fmt.Sprintf("%s.%s has no place in %s: %s", x.Name, n.Sel.Name, f.Pkg, c.why)})
				}
			}
		case *ast.CallExpr:
			if x, ok := n.Fun.(*ast.Ident); ok && (x.Name == "println" || x.Name == "print") {
				found = append(found, Finding{t.at(n.Pos()), x.Name + " is for debugging; remove it, or log with slog"})
			}
		}
		return true
	})
	return found
}

func forbidden(pkg, from, name string) *call {
	if from == "net/http" && pure(pkg) && !strings.HasPrefix(name, "Status") {
		return &call{why: "pure logic knows the status codes of HTTP, no more"}
	}
	for _, c := range forbiddenCalls() {
		prefix, open := strings.CutSuffix(c.name, "*")
		if c.pkg != from || insideAny(pkg, c.in) || (name != c.name && (!open || !strings.HasPrefix(name, prefix))) {
			continue
		}
		return &c
	}
	return nil
}

// importNames maps the name a file uses for a package to the package's path. A
// local variable of the same name is not told apart; choose another for it.
func importNames(f *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range f.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue
		}
		name := p[strings.LastIndexByte(p, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	return names
}

// unfinished is what people write where work is left.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

// webComment is the part of a line that is, or may be, a comment.
var webComment = regexp.MustCompile(`(//|/\*|^\s*\*).*`)

// Comments checks that no comment promises work for later.
func Comments(t *Tree) []Finding {
	const text = "finish it, or describe the limitation to those who meet it; nobody reads notes in the source"
	var found []Finding
	for _, f := range t.Go {
		for _, group := range f.AST.Comments {
			for _, c := range group.List {
				if unfinished.MatchString(c.Text) {
					found = append(found, Finding{t.at(c.Pos()), text})
				}
			}
		}
	}
	for _, p := range t.Web {
		content, err := fs.ReadFile(t.FS, p)
		if err != nil {
			continue
		}
		for i, line := range bytes.Split(content, []byte("\n")) {
			if unfinished.Match(webComment.Find(line)) {
				found = append(found, Finding{fmt.Sprintf("%s:%d", p, i+1), text})
			}
		}
	}
	return inOrder(found)
}

// Skips checks that tests skip through package skip only, where CI can forbid
// it. A property that rejects a drawn value is no skipped test.
func Skips(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Go {
		if inside(f.Pkg, "internal/lint/skip") {
			continue
		}
		ast.Walk(&skipWalker{tree: t, found: &found}, f.AST)
	}
	return inOrder(found)
}

// skipWalker remembers which parameters in scope are tests. Each function scope
// gets a walker of its own, so that a shadowed name is judged by the inner one.
type skipWalker struct {
	tree  *Tree
	tests []string
	found *[]Finding
}

// Visit follows function scopes and judges calls.
func (w *skipWalker) Visit(n ast.Node) ast.Visitor {
	switch n := n.(type) {
	case *ast.FuncDecl:
		return w.enter(n.Type)
	case *ast.FuncLit:
		return w.enter(n.Type)
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			break
		}
		x, ok := sel.X.(*ast.Ident)
		if ok && slices.Contains(w.tests, x.Name) && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			*w.found = append(*w.found, Finding{w.tree.at(n.Pos()), "skip with skip.Test of internal/lint/skip: CI must be able to forbid it"})
		}
	}
	return w
}

func (w *skipWalker) enter(fn *ast.FuncType) ast.Visitor {
	inner := &skipWalker{tree: w.tree, tests: slices.Clone(w.tests), found: w.found}
	for _, p := range fn.Params.List {
		for _, name := range p.Names {
			inner.tests = slices.DeleteFunc(inner.tests, func(s string) bool { return s == name.Name })
			if isTest(p.Type) {
				inner.tests = append(inner.tests, name.Name)
			}
		}
	}
	return inner
}

// isTest reports whether a type is *testing.T, B or F, or testing.TB.
func isTest(t ast.Expr) bool {
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	sel, ok := t.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == "testing" && slices.Contains([]string{"T", "B", "F", "TB"}, sel.Sel.Name)
}
