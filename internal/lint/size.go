package lint

import (
	"bytes"
	"fmt"
	"go/ast"
	"io/fs"
)

// The limits of size. They watch the tail: the median is far below.
const (
	// MaxFunction is the most lines of a function, from its name to its brace.
	MaxFunction = 70
	// MaxTestFunction is for functions in test files, which hold tables.
	MaxTestFunction = 150
	// MaxFile is the most lines of a file.
	MaxFile = 800
	// MaxFields is the most fields of a struct.
	MaxFields = 25
)

// Allowance lets one thing be larger than its limit.
type Allowance struct {
	// What is the name a finding gives: "internal/x.T.Method", "internal/x.T"
	// or a path.
	What string
	// Max is the size it has; it may shrink, not grow.
	Max int
}

// allowances is the list of exceptions. It is to shrink: an entry that is not
// needed any more, or is larger than needed, is a finding.
func allowances() []Allowance {
	return []Allowance{}
}

// measured is the size of one thing against its limit.
type measured struct {
	pos, what, unit string
	size, limit     int
}

// Sizes checks lengths of functions and files and numbers of fields. Generated
// files are free.
func Sizes(t *Tree) []Finding { return sizes(t, allowances()) }

func sizes(t *Tree, allowed []Allowance) []Finding {
	most := map[string]int{}
	for _, a := range allowed {
		most[a.What] = a.Max
	}
	var found []Finding
	for _, m := range measure(t) {
		allowance, has := most[m.what]
		switch {
		case has && m.size > m.limit && m.size == allowance:
			delete(most, m.what)
		case has && m.size > m.limit && m.size < allowance:
			delete(most, m.what)
			found = append(found, Finding{m.pos, fmt.Sprintf("%s has shrunk to %d %s; lower its allowance of %d in internal/lint/size.go", m.what, m.size, m.unit, allowance)})
		case m.size > m.limit:
			delete(most, m.what)
			found = append(found, Finding{m.pos, fmt.Sprintf("%s has %d %s, the limit is %d; split it where a part has a name of its own", m.what, m.size, m.unit, max(m.limit, allowance))})
		}
	}
	for what := range most {
		found = append(found, Finding{"internal/lint/size.go", fmt.Sprintf("%s needs no allowance any more; remove it", what)})
	}
	return inOrder(found)
}

func measure(t *Tree) []measured {
	var all []measured
	for _, f := range t.Go {
		if f.Generated {
			continue
		}
		all = append(all, measured{f.Path, f.Path, "lines", f.Lines, MaxFile})
		limit := MaxFunction
		if f.Test {
			limit = MaxTestFunction
		}
		for _, d := range f.AST.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				lines := t.line(d.End()) - t.line(d.Pos()) + 1
				all = append(all, measured{t.at(d.Pos()), f.Pkg + "." + funcName(d), "lines", lines, limit})
			case *ast.GenDecl:
				all = append(all, measureStructs(t, f, d)...)
			}
		}
	}
	for _, p := range t.Web {
		if text, err := fs.ReadFile(t.FS, p); err == nil {
			all = append(all, measured{p, p, "lines", bytes.Count(text, []byte("\n")), MaxFile})
		}
	}
	return all
}

func measureStructs(t *Tree, f *GoFile, d *ast.GenDecl) []measured {
	var all []measured
	for _, s := range d.Specs {
		ts, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		st, ok := ts.Type.(*ast.StructType)
		if !ok {
			continue
		}
		all = append(all, measured{t.at(ts.Pos()), f.Pkg + "." + ts.Name.Name, "fields", countFields(st), MaxFields})
	}
	return all
}

// countFields counts the fields of a struct and of the structs written inside
// it: a guarded group hides nothing.
func countFields(st *ast.StructType) int {
	n := 0
	for _, f := range st.Fields.List {
		if inner, ok := f.Type.(*ast.StructType); ok {
			n += countFields(inner)
			continue
		}
		n += max(1, len(f.Names))
	}
	return n
}

// funcName is "F" or "T.M".
func funcName(d *ast.FuncDecl) string {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return d.Name.Name
	}
	recv := d.Recv.List[0].Type
	for {
		switch r := recv.(type) {
		case *ast.StarExpr:
			recv = r.X
		case *ast.IndexExpr:
			recv = r.X
		case *ast.IndexListExpr:
			recv = r.X
		case *ast.Ident:
			return r.Name + "." + d.Name.Name
		default:
			return d.Name.Name
		}
	}
}
