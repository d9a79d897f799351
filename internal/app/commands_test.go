package app

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
)

// Every command of the sources is in the list of its package: a type with the four
// methods of partition.Command.
func TestEveryCommandTravels(t *testing.T) {
	known := make(map[string]bool)
	for _, c := range append(commands(), partition.Commands()...) {
		rt := reflect.TypeOf(c)
		if rt.Kind() == reflect.Pointer {
			rt = rt.Elem()
		}
		known[strings.TrimPrefix(rt.PkgPath(), "github.com/hubbub-chat/hubbub/")+"."+rt.Name()] = true
	}
	found := 0
	for name, methods := range sourceMethods(t) {
		if !methods["Name"] || !methods["Prepare"] || !methods["Apply"] {
			continue
		}
		found++
		if !known[name] {
			t.Errorf("%s is a command and not in the Commands of its package: it cannot reach another node", name)
		}
	}
	if found != len(known) || found == 0 {
		t.Errorf("%d commands in the sources, %d are listed", found, len(known))
	}
}

// sourceMethods are the methods of each type of internal, by its directory and name.
func sourceMethods(t *testing.T) map[string]map[string]bool {
	t.Helper()
	out := make(map[string]map[string]bool)
	files := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := "internal/" + strings.TrimPrefix(filepath.ToSlash(filepath.Dir(path)), "../")
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			recv := fn.Recv.List[0].Type
			if star, ok := recv.(*ast.StarExpr); ok {
				recv = star.X
			}
			id, ok := recv.(*ast.Ident)
			if !ok {
				continue
			}
			if out[dir+"."+id.Name] == nil {
				out[dir+"."+id.Name] = make(map[string]bool)
			}
			out[dir+"."+id.Name][fn.Name.Name] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Whatever its exported fields hold, a command arrives as it was sent.
func TestCommandsArriveAsSent(t *testing.T) {
	w, err := newWire()
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range append(commands(), partition.Commands()...) {
		t.Run(sample.Name(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				v := reflect.New(reflect.TypeOf(sample)).Elem()
				if v.Kind() == reflect.Pointer {
					v.Set(reflect.New(v.Type().Elem()))
					fill(t, v.Elem(), 0)
				} else {
					fill(t, v, 0)
				}
				sent := v.Interface().(partition.Command)
				b, err := w.Encode(sent)
				if err != nil {
					t.Fatal(err)
				}
				got, err := w.Decode(b)
				if err != nil || !reflect.DeepEqual(got, sent) {
					t.Fatalf("got %#v, %v\nsent %#v", got, err, sent)
				}
			})
		})
	}
}

// fill sets what can travel of a value to anything: nil, empty, or full.
func fill(t *rapid.T, v reflect.Value, depth int) {
	const deep = 6
	if v.Type() == reflect.TypeFor[pushrules.Condition]() {
		c := v.Addr().Interface().(*pushrules.Condition)
		text := rapid.SampledFrom([]string{
			`{"kind":"event_match","key":"type","pattern":"m.*"}`, `{"kind":"of.the.future","x":[1,null]}`,
			`{"kind":"event_property_is","key":"a","value":2}`, `{"kind":"event_property_is","key":"a","value":null}`,
		}).Draw(t, "condition")
		if err := c.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int") >> (64 - v.Type().Bits()))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "uint") >> (64 - v.Type().Bits()))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(rapid.Int32().Draw(t, "float")))
	case reflect.String: // any bytes, not only UTF-8
		v.SetString(string(rapid.SliceOfN(rapid.Byte(), 0, 4).Draw(t, "string")))
	case reflect.Pointer:
		if depth < deep && rapid.Bool().Draw(t, "pointer") {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), depth+1)
		}
	case reflect.Slice:
		if n := rapid.IntRange(-1, 2).Draw(t, "len"); n >= 0 && depth < deep {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				fill(t, v.Index(i), depth+1)
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), depth+1)
		}
	case reflect.Map:
		if n := rapid.IntRange(-1, 2).Draw(t, "size"); n >= 0 && depth < deep {
			v.Set(reflect.MakeMap(v.Type()))
			for range n {
				key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				fill(t, key, depth+1)
				fill(t, value, depth+1)
				v.SetMapIndex(key, value)
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() || f.Anonymous {
				fill(t, v.Field(i), depth+1)
			}
		}
	case reflect.Interface:
		if list := unions()[v.Type()]; rapid.Bool().Draw(t, "union") {
			one := reflect.New(reflect.TypeOf(list[rapid.IntRange(0, len(list)-1).Draw(t, "which")])).Elem()
			if one.Kind() == reflect.Pointer {
				one.Set(reflect.New(one.Type().Elem()))
				fill(t, one.Elem(), depth+1)
			} else {
				fill(t, one, depth+1)
			}
			v.Set(one)
		}
	}
}
