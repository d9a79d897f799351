package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Kind is the form of a key's value.
type Kind uint8

// The kinds.
const (
	KindString Kind = iota + 1
	KindBool
	KindInt
	KindFloat
	KindList
)

// String names the kind as an operator knows it.
func (k Kind) String() string {
	switch k {
	case KindString:
		return "a string"
	case KindBool:
		return "true or false"
	case KindInt:
		return "a whole number"
	case KindFloat:
		return "a number"
	case KindList:
		return "a list of strings"
	default:
		return "Kind(" + strconv.Itoa(int(k)) + ")"
	}
}

// Field is one key and the names it has in each source.
type Field struct {
	// Key is the dotted name in the file: "limits.login.burst".
	Key string
	// Env is the environment variable: "HUBBUB_LIMITS_LOGIN_BURST".
	Env string
	// Flag is the systematic flag without dashes: "limits.login.burst".
	Flag string
	// ShortFlag is the stable flag without dashes ("listen"), or "".
	ShortFlag string
	// Help is what the key does; Arg is the placeholder of its value.
	Help, Arg string
	// Default is the default value as one writes it after a flag.
	Default string
	// Enum lists the values allowed; nil allows all.
	Enum []string
	Kind Kind

	index []int
}

// section is a table of the file.
type section struct {
	name, help string
}

// EnvPrefix begins every environment variable that the server reads.
const EnvPrefix = "HUBBUB_"

// Fields lists every key in the order of the example file.
func Fields() []Field {
	fields, _ := describe(reflect.TypeFor[Config](), "", nil)
	defaults := Default()
	for i := range fields {
		fields[i].Default = fields[i].word(&defaults)
	}
	return fields
}

func sections() []section {
	_, s := describe(reflect.TypeFor[Config](), "", nil)
	return s
}

// describe walks a section's struct. It panics on a field whose type the package
// cannot read from text: that is a mistake in Config, which every test finds.
func describe(t reflect.Type, prefix string, index []int) (fields []Field, nested []section) {
	for i := range t.NumField() {
		sf := t.Field(i)
		name := sf.Tag.Get("toml")
		key := name
		if prefix != "" {
			key = prefix + "." + name
		}
		at := append(slices.Clone(index), i)
		if sf.Type.Kind() == reflect.Struct {
			nested = append(nested, section{name: key, help: sf.Tag.Get("help")})
			f, n := describe(sf.Type, key, at)
			fields, nested = append(fields, f...), append(nested, n...)
			continue
		}
		f := Field{
			Key:       key,
			Env:       EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_")),
			Flag:      strings.ReplaceAll(key, "_", "-"),
			ShortFlag: sf.Tag.Get("flag"),
			Help:      sf.Tag.Get("help"),
			Arg:       sf.Tag.Get("arg"),
			Kind:      kindOf(sf.Type),
			index:     at,
		}
		if e := sf.Tag.Get("enum"); e != "" {
			f.Enum = strings.Split(e, ",")
		}
		fields = append(fields, f)
	}
	return fields, nested
}

func kindOf(t reflect.Type) Kind {
	switch t.Kind() {
	case reflect.String:
		return KindString
	case reflect.Bool:
		return KindBool
	case reflect.Int, reflect.Int64:
		return KindInt
	case reflect.Float64:
		return KindFloat
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String || t.Elem() == reflect.TypeFor[netip.Prefix]() {
			return KindList
		}
	}
	panic("config: no kind for a field of type " + t.String())
}

// set puts a value, as words, into the field of c. A value that is no list has
// one word.
func (f *Field) set(c *Config, words []string) error {
	v := reflect.ValueOf(c).Elem().FieldByIndex(f.index)
	if f.Kind == KindList {
		return f.setList(v, words)
	}
	if len(words) != 1 {
		return fmt.Errorf("wants %s, once", f.Kind)
	}
	w := words[0]
	switch f.Kind {
	case KindBool:
		b, err := strconv.ParseBool(w)
		if err != nil {
			return fmt.Errorf("wants true or false, not %q", w)
		}
		v.SetBool(b)
	case KindInt:
		n, err := strconv.ParseInt(w, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("wants a whole number, not %q", w)
		}
		v.SetInt(n)
	case KindFloat:
		x, err := strconv.ParseFloat(w, 64)
		if err != nil {
			return fmt.Errorf("wants a number, not %q", w)
		}
		v.SetFloat(x)
	default:
		if err := f.checkEnum(w); err != nil {
			return err
		}
		v.SetString(w)
	}
	return nil
}

func (f *Field) setList(v reflect.Value, words []string) error {
	list := reflect.MakeSlice(v.Type(), 0, len(words))
	for _, w := range words {
		if v.Type().Elem() == reflect.TypeFor[netip.Prefix]() {
			p, err := parseNetwork(w)
			if err != nil {
				return err
			}
			list = reflect.Append(list, reflect.ValueOf(p))
			continue
		}
		if err := f.checkEnum(w); err != nil {
			return err
		}
		list = reflect.Append(list, reflect.ValueOf(w).Convert(v.Type().Elem()))
	}
	v.Set(list)
	return nil
}

func (f *Field) checkEnum(w string) error {
	if f.Enum == nil || slices.Contains(f.Enum, w) {
		return nil
	}
	return fmt.Errorf("does not know %q; use %s (the nearest is %q)", w, strings.Join(f.Enum, ", "), nearest(w, f.Enum))
}

// parseNetwork reads a network in CIDR form; a plain address is a network of one.
func parseNetwork(w string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(w); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(w)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("wants a network such as 10.0.0.0/8 or fd00::/8, not %q", w)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its prefix; write %q", w, p.Masked())
	}
	return p, nil
}

// word returns the field's value in c as the words of a flag.
func (f *Field) word(c *Config) string {
	v := reflect.ValueOf(c).Elem().FieldByIndex(f.index)
	if f.Kind != KindList {
		return fmt.Sprint(v.Interface())
	}
	words := make([]string, v.Len())
	for i := range words {
		words[i] = fmt.Sprint(v.Index(i).Interface())
	}
	return strings.Join(words, ",")
}

// literal returns the field's value in c as TOML.
func (f *Field) literal(c *Config) string {
	v := reflect.ValueOf(c).Elem().FieldByIndex(f.index)
	switch f.Kind {
	case KindBool:
		return strconv.FormatBool(v.Bool())
	case KindInt:
		return strconv.FormatInt(v.Int(), 10)
	case KindFloat:
		return strconv.FormatFloat(v.Float(), 'f', -1, 64)
	case KindList:
		words := make([]string, v.Len())
		for i := range words {
			words[i] = strconv.Quote(fmt.Sprint(v.Index(i).Interface()))
		}
		return "[" + strings.Join(words, ", ") + "]"
	default:
		return strconv.Quote(fmt.Sprint(v.Interface()))
	}
}
