// Package lint holds the rules of the source tree that a compiler does not know:
// which package may import which, how long things may grow, what may not be
// called where, and that documents name files that exist. Its tests run them
// over the whole tree; go test ./... therefore does too.
//
// A rule is a function from the parsed tree to findings. Rules know nothing of
// each other, read only what Load read, and are proven by small trees in their
// tests that break them. Nothing but tests may import this package.
package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
)

// Module is the module's path.
const Module = "github.com/hubbub-chat/hubbub"

// Finding is one breach of a rule.
type Finding struct {
	// Pos is "path:line", or a path.
	Pos string
	// Text says what is wrong and why the rule is there.
	Text string
}

// String is the finding in the form that editors jump to.
func (f Finding) String() string { return f.Pos + ": " + f.Text }

// GoFile is one parsed Go file.
type GoFile struct {
	// Path is relative to the root of the tree, with slashes.
	Path string
	// Pkg is the directory, which names the package in rules.
	Pkg       string
	Test      bool
	Generated bool
	Lines     int
	AST       *ast.File
}

// Tree is the source tree as the rules see it.
type Tree struct {
	// FS is the root of the tree.
	FS fs.FS
	// Go holds the Go files, Web the sources of the web app, Docs the Markdown
	// files: paths in order.
	Go   []*GoFile
	Web  []string
	Docs []string

	fset *token.FileSet
}

// Load reads the tree below dir.
func Load(dir string) (*Tree, error) { return LoadFS(os.DirFS(dir)) }

// LoadFS reads a tree.
func LoadFS(root fs.FS) (*Tree, error) {
	t := &Tree{FS: root, fset: token.NewFileSet()}
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return enter(p, d)
		case strings.HasSuffix(p, ".go"):
			return t.addGo(p)
		case strings.HasPrefix(p, "web/") && isWebSource(p):
			t.Web = append(t.Web, p)
		case path.Ext(p) == ".md":
			t.Docs = append(t.Docs, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read source tree: %w", err)
	}
	return t, nil
}

// enter leaves out what is not ours or not source.
func enter(p string, d fs.DirEntry) error {
	switch d.Name() {
	case ".git", "node_modules", "testdata":
		return fs.SkipDir
	}
	switch p {
	case "bin", "data", "coverage", "web/dist":
		return fs.SkipDir
	}
	return nil
}

func isWebSource(p string) bool {
	switch path.Ext(p) {
	case ".ts", ".tsx", ".css", ".mjs", ".js":
		return true
	}
	return false
}

func (t *Tree) addGo(p string) error {
	text, err := fs.ReadFile(t.FS, p)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(t.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.Go = append(t.Go, &GoFile{
		Path: p, Pkg: path.Dir(p), Test: strings.HasSuffix(p, "_test.go"), Generated: ast.IsGenerated(file),
		Lines: countLines(text), AST: file,
	})
	return nil
}

func countLines(text []byte) int {
	n := strings.Count(string(text), "\n")
	if len(text) > 0 && text[len(text)-1] != '\n' {
		n++
	}
	return n
}

// at is the position of a node for a finding.
func (t *Tree) at(p token.Pos) string {
	pos := t.fset.Position(p)
	return fmt.Sprintf("%s:%d", pos.Filename, pos.Line)
}

// line is the number of a position's line.
func (t *Tree) line(p token.Pos) int { return t.fset.Position(p).Line }

// inOrder sorts findings so that two runs print the same.
func inOrder(f []Finding) []Finding {
	sort.SliceStable(f, func(i, j int) bool { return f[i].String() < f[j].String() })
	return f
}

// inside reports whether a package is dir or below it.
func inside(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }
