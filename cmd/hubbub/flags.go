package main

import (
	"fmt"
	"reflect"
	"strconv"

	"github.com/alecthomas/kong"

	"github.com/hubbub-chat/hubbub/internal/config"
)

// configFlags are the flags that set keys of the configuration. They are made
// from config.Fields, so that no key can be without one: each key has the flag
// --section.key, and those that people type have a short one, of which the long
// is an alias.
type configFlags struct {
	fields []config.Field
	// args points to a struct made for kong: File, and a words or switchWords
	// for each of fields, and what the subcommand takes besides.
	args any
}

// words collects the values of one flag as they were written.
type words []string

// switchWords is words for a flag that may stand without a value.
type switchWords []string

var (
	_ kong.MapperValue     = (*words)(nil)
	_ kong.BoolMapperValue = (*switchWords)(nil)
)

// Decode takes the flag's value.
func (w *words) Decode(ctx *kong.DecodeContext) error {
	var word string
	if err := ctx.Scan.PopValueInto("value", &word); err != nil {
		return fmt.Errorf("read flag: %w", err)
	}
	*w = append(*w, word)
	return nil
}

// Decode takes the value behind "=", or true. The last one written wins.
func (w *switchWords) Decode(ctx *kong.DecodeContext) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		*w = switchWords{strconv.FormatBool(true)}
		return nil
	}
	*w = switchWords{fmt.Sprint(ctx.Scan.Pop().Value)}
	return nil
}

// IsBool tells kong that the flag may stand alone.
func (*switchWords) IsBool() bool { return true }

// newConfigFlags makes the flags, and those of a subcommand's own.
func newConfigFlags(own ...reflect.StructField) configFlags {
	fields := config.Fields()
	members := []reflect.StructField{{
		Name: "File",
		Type: reflect.TypeFor[string](),
		Tag:  `name:"config" placeholder:"FILE" help:"Read the configuration from a TOML file."`,
	}}
	for i, f := range fields {
		t := reflect.TypeFor[words]()
		if f.Kind == config.KindBool {
			t = reflect.TypeFor[switchWords]()
		}
		tag := fmt.Sprintf("name:%q", f.Flag)
		if f.ShortFlag != "" {
			tag = fmt.Sprintf("name:%q aliases:%q", f.ShortFlag, f.Flag)
		}
		tag += fmt.Sprintf(" help:%q placeholder:%q", helpOf(f), f.Arg)
		members = append(members, reflect.StructField{Name: "F" + strconv.Itoa(i), Type: t, Tag: reflect.StructTag(tag)})
	}
	members = append(members, own...)
	return configFlags{fields: fields, args: reflect.New(reflect.StructOf(members)).Interface()}
}

func helpOf(f config.Field) string {
	text := f.Help
	if f.Kind == config.KindList {
		text += " Repeat it, or put commas between several."
	}
	if f.Default != "" && f.Kind != config.KindBool {
		text += " Default: " + f.Default
	}
	return text
}

// load gathers the configuration. Its errors are errUsage.
func (c configFlags) load(p process) (config.Config, error) {
	v := reflect.ValueOf(c.args).Elem()
	given := map[string][]string{}
	for i, f := range c.fields {
		if w := v.Field(i + 1); w.Len() > 0 {
			given[f.Key] = w.Convert(reflect.TypeFor[[]string]()).Interface().([]string)
		}
	}
	cfg, err := config.Load(config.Input{File: v.Field(0).String(), Environ: p.environ, Flags: given})
	if err != nil {
		return config.Config{}, usageError{err}
	}
	return cfg, nil
}

// own returns a word that the subcommand takes besides.
func (c configFlags) own(name string) string {
	return reflect.ValueOf(c.args).Elem().FieldByName(name).String()
}

// ownSwitch is own for a flag without a value.
func (c configFlags) ownSwitch(name string) bool {
	return reflect.ValueOf(c.args).Elem().FieldByName(name).Bool()
}

// usageError makes an error one that ends the process with exitUsage, without a
// word more in its text.
type usageError struct{ cause error }

var _ error = usageError{}

// Error is the text of the cause.
func (e usageError) Error() string { return e.cause.Error() }

// Is makes the error an errUsage.
func (e usageError) Is(target error) bool { return target == errUsage }

// Unwrap returns the cause.
func (e usageError) Unwrap() error { return e.cause }
