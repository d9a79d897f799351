package lint

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
)

// madeSQL finds statements for PostgreSQL that are not put together of constants
// alone: what is in a request, or in the store, has to be a parameter of a statement.
// A variable or parameter that holds one is called statement, so that all it is given
// can be looked at too.
func madeSQL(t *Tree) []Finding {
	w := sqlWalk{constants: make(map[string]map[string]bool), takes: make(map[string]map[string]int)}
	for _, f := range t.Go {
		w.declare(f)
	}
	var found []Finding
	for _, f := range t.Go {
		if f.Test || testSupport(f.Pkg) || insideAny(f.Pkg, []string{"internal/bench"}) || !importsSQL(f.AST) {
			continue
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			for _, sql := range w.statements(f.Pkg, n) {
				if !w.constant(f.Pkg, sql) {
					found = append(found, Finding{t.at(sql.Pos()), "SQL that is put together could hold what somebody sent; write it as a constant with parameters"})
				}
			}
			return true
		})
	}
	return found
}

const statementName = "statement"

type sqlWalk struct {
	// constants are the names of constants by package; takes says of functions which
	// of their parameters is a statement.
	constants map[string]map[string]bool
	takes     map[string]map[string]int
}

func (w *sqlWalk) declare(f *GoFile) {
	if w.constants[f.Pkg] == nil {
		w.constants[f.Pkg], w.takes[f.Pkg] = map[string]bool{statementName: true}, make(map[string]int)
	}
	ast.Inspect(f.AST, func(n ast.Node) bool {
		switch d := n.(type) {
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && d.Tok == token.CONST {
					for _, name := range v.Names {
						w.constants[f.Pkg][name.Name] = true
					}
				}
			}
		case *ast.FuncDecl:
			at := 0
			for _, field := range d.Type.Params.List {
				for _, name := range field.Names {
					if name.Name == statementName {
						w.takes[f.Pkg][d.Name.Name] = at
					}
					at++
				}
			}
		}
		return true
	})
}

func importsSQL(f *ast.File) bool {
	return slices.ContainsFunc(f.Imports, func(s *ast.ImportSpec) bool {
		return strings.Contains(s.Path.Value, "github.com/jackc/pgx/") || s.Path.Value == `"database/sql"`
	})
}

// statements are the expressions of a node that have to be constant SQL.
func (w *sqlWalk) statements(pkg string, n ast.Node) (out []ast.Expr) {
	switch n := n.(type) {
	case *ast.AssignStmt:
		for i, l := range n.Lhs {
			if x, ok := l.(*ast.Ident); ok && x.Name == statementName && len(n.Rhs) == len(n.Lhs) {
				out = append(out, n.Rhs[i])
			}
		}
	case *ast.CallExpr:
		at := -1
		switch fn := n.Fun.(type) {
		case *ast.SelectorExpr:
			at = slices.Index([]string{"Queue", "Exec", "Query", "QueryRow"}, fn.Sel.Name)
			at = min(at, 1) // behind the context
		case *ast.Ident:
			if i, ok := w.takes[pkg][fn.Name]; ok {
				at = i
			}
		}
		if at >= 0 && len(n.Args) > at {
			out = append(out, n.Args[at])
		}
	}
	return out
}

func (w *sqlWalk) constant(pkg string, e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.Ident:
		return w.constants[pkg][e.Name]
	case *ast.ParenExpr:
		return w.constant(pkg, e.X)
	case *ast.BinaryExpr:
		return w.constant(pkg, e.X) && w.constant(pkg, e.Y)
	}
	return false
}
