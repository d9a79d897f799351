package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// FileEnv is the environment variable that names the file when no flag does.
const FileEnv = EnvPrefix + "CONFIG"

// Input is where Load looks.
type Input struct {
	// File is the path of the TOML file; "" takes FileEnv, and no file if that
	// is not set either.
	File string
	// Environ is the environment as os.Environ gives it.
	Environ []string
	// Flags holds the values of the flags that were given, by Field.Key. An
	// element of a list flag may hold several words with commas between them.
	Flags map[string][]string
}

// Problem is one thing an operator has to change.
type Problem struct {
	// Key is the key at fault, "" if the fault is not at one.
	Key string
	// Source is where its value came from: "default", "file hubbub.toml",
	// "environment HUBBUB_LOG_LEVEL", "flag --log-level".
	Source string
	// Text says what is wrong and what to do. It holds no secret.
	Text string
}

// String is the problem in one line.
func (p Problem) String() string {
	switch {
	case p.Key == "":
		return p.Source + ": " + p.Text
	case p.Source == "":
		return p.Key + ": " + p.Text
	default:
		return p.Key + " (" + p.Source + "): " + p.Text
	}
}

// Error lists everything wrong with a configuration, so that an operator mends
// it in one go.
type Error struct {
	Problems []Problem
}

var _ error = (*Error)(nil)

// Error has a line for each problem.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return "configuration: " + strings.Join(lines, "\nconfiguration: ")
}

// layer is one source: the keys it sets and where each was found.
type layer struct {
	words  map[string][]string
	source map[string]string
}

func newLayer() layer {
	return layer{words: map[string][]string{}, source: map[string]string{}}
}

func (l layer) put(key, source string, words []string) {
	l.words[key], l.source[key] = words, source
}

// Load gathers the configuration from its sources and validates it. Every error
// is an *Error, save those of reading the file, which wrap the cause.
func Load(in Input) (Config, error) {
	fields := Fields()
	var problems []Problem

	path := in.File
	if path == "" {
		path = lookup(in.Environ, FileEnv)
	}
	file, err := readFile(path, fields, &problems)
	if err != nil {
		return Config{}, err
	}
	layers := []layer{
		file,
		readEnviron(in.Environ, fields, &problems),
		readFlags(in.Flags, fields, &problems),
	}
	expandTestMode(layers)

	c := Default()
	source := map[string]string{}
	for _, l := range layers {
		for i := range fields {
			f := &fields[i]
			words, ok := l.words[f.Key]
			if !ok {
				continue
			}
			source[f.Key] = l.source[f.Key]
			if err := f.set(&c, words); err != nil {
				problems = append(problems, Problem{f.Key, l.source[f.Key], err.Error()})
			}
		}
	}
	// A value that could not be read leaves the one below it in place; what
	// Validate says of that would only distract.
	if len(problems) == 0 {
		problems = c.problems()
		for i := range problems {
			problems[i].Source = source[problems[i].Key]
			if problems[i].Source == "" {
				problems[i].Source = "default"
			}
		}
	}
	if len(problems) > 0 {
		return Config{}, &Error{Problems: problems}
	}
	return c, nil
}

const testModeKey = "server.test_mode"

// testModeKeys is what test mode stands for.
func testModeKeys() map[string][]string {
	return map[string][]string{
		"registration.mode":                  {string(RegistrationOpen)},
		"registration.allow_weak_passwords":  {"true"},
		"registration.cheap_password_hashes": {"true"},
		"limits.no_rate_limits":              {"true"},
		"limits.preview_allow":               {"127.0.0.0/8"},
		"push.allow":                         {"127.0.0.0/8"},
		"media.legacy_download":              {"true"},
	}
}

// expandTestMode writes the keys that test mode stands for into the layer that
// has the last word on it, unless that layer sets them itself.
func expandTestMode(layers []layer) {
	for i := len(layers) - 1; i >= 0; i-- {
		l := layers[i]
		words, ok := l.words[testModeKey]
		if !ok {
			continue
		}
		if on, err := strconv.ParseBool(strings.Join(words, "")); err != nil || !on {
			return
		}
		for key, words := range testModeKeys() {
			if _, set := l.words[key]; !set {
				l.put(key, l.source[testModeKey], words)
			}
		}
		return
	}
}

func lookup(environ []string, name string) string {
	value := ""
	for _, e := range environ {
		if k, v, _ := strings.Cut(e, "="); k == name {
			value = v
		}
	}
	return value
}

// reserved are variables with the prefix that are not the server's: what
// Kubernetes sets in each pod for services whose names begin with "hubbub", and
// what this project's own tests use.
var reserved = regexp.MustCompile(`^HUBBUB_(TEST_.*|([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?))$`)

func readEnviron(environ []string, fields []Field, problems *[]Problem) layer {
	l := newLayer()
	byName := map[string]*Field{}
	names := []string{FileEnv}
	for i := range fields {
		byName[fields[i].Env] = &fields[i]
		names = append(names, fields[i].Env)
	}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		f, known := byName[name]
		switch {
		case !strings.HasPrefix(name, EnvPrefix), name == FileEnv:
		case known:
			l.put(f.Key, "environment "+name, split(f, []string{value}))
		case reserved.MatchString(name):
		default:
			*problems = append(*problems, Problem{
				Source: "environment",
				Text:   fmt.Sprintf("%s is not known; did you mean %s? Unset it, or give it that name", name, nearest(name, names)),
			})
		}
	}
	return l
}

func readFlags(flags map[string][]string, fields []Field, problems *[]Problem) layer {
	l := newLayer()
	known := map[string]bool{}
	for i := range fields {
		f := &fields[i]
		known[f.Key] = true
		words, given := flags[f.Key]
		if !given {
			continue
		}
		name := f.Flag
		if f.ShortFlag != "" {
			name = f.ShortFlag
		}
		l.put(f.Key, "flag --"+name, split(f, words))
	}
	for key := range flags {
		if !known[key] {
			*problems = append(*problems, Problem{Source: "flags", Text: "no key is named " + key})
		}
	}
	return l
}

// split cuts the words of a list at commas; an empty word is an empty list.
func split(f *Field, words []string) []string {
	if f.Kind != KindList {
		return words
	}
	var out []string
	for _, w := range words {
		for _, part := range strings.Split(w, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

func readFile(path string, fields []Field, problems *[]Problem) (layer, error) {
	if path == "" {
		return newLayer(), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return layer{}, fmt.Errorf("read configuration: %w", err)
	}
	l, found := decodeTOML(string(text), "file "+path, fields)
	*problems = append(*problems, found...)
	return l, nil
}

// decodeTOML reads a file's text. Values are checked against the kinds of their
// keys here, where TOML still knows them apart.
func decodeTOML(text, source string, fields []Field) (layer, []Problem) {
	l := newLayer()
	var tree map[string]any
	if _, err := toml.Decode(text, &tree); err != nil {
		problem := Problem{Source: source, Text: err.Error()}
		if pe := (toml.ParseError{}); errors.As(err, &pe) {
			problem.Text = fmt.Sprintf("line %d: %s", pe.Position.Line, pe.Message)
		}
		return l, []Problem{problem}
	}
	r := tomlReader{layer: l, source: source, fields: map[string]*Field{}, sections: map[string]bool{}}
	for i := range fields {
		r.fields[fields[i].Key] = &fields[i]
		r.names = append(r.names, fields[i].Key)
	}
	for _, s := range sections() {
		r.sections[s.name] = true
		r.names = append(r.names, s.name)
	}
	r.table("", tree)
	return l, r.problems
}

// tomlReader flattens a decoded file into a layer.
type tomlReader struct {
	layer    layer
	source   string
	fields   map[string]*Field
	sections map[string]bool
	names    []string
	problems []Problem
}

func (r *tomlReader) table(prefix string, tree map[string]any) {
	names := make([]string, 0, len(tree))
	for name := range tree {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		key := name
		if prefix != "" {
			key = prefix + "." + name
		}
		value := tree[name]
		sub, isTable := value.(map[string]any)
		f, isField := r.fields[key]
		switch {
		case isField:
			words, err := tomlWords(f, value)
			if err != nil {
				r.problem(key, err.Error())
				continue
			}
			r.layer.put(key, r.source, words)
		case r.sections[key] && isTable:
			r.table(key, sub)
		case r.sections[key]:
			r.problem(key, fmt.Sprintf("is a section; write [%s] once and its keys below", key))
		default:
			r.problem(key, fmt.Sprintf("is not known; did you mean %s? Remove it, or give it that name", nearest(key, r.names)))
		}
	}
}

func (r *tomlReader) problem(key, text string) {
	r.problems = append(r.problems, Problem{Key: key, Source: r.source, Text: text})
}

func tomlWords(f *Field, value any) ([]string, error) {
	switch v := value.(type) {
	case string:
		if f.Kind == KindString {
			return []string{v}, nil
		}
	case bool:
		if f.Kind == KindBool {
			return []string{strconv.FormatBool(v)}, nil
		}
	case int64:
		if f.Kind == KindInt || f.Kind == KindFloat {
			return []string{strconv.FormatInt(v, 10)}, nil
		}
	case float64:
		if f.Kind == KindFloat {
			return []string{strconv.FormatFloat(v, 'g', -1, 64)}, nil
		}
	case []any:
		if words, ok := stringsOf(v); ok && f.Kind == KindList {
			return words, nil
		}
	}
	return nil, fmt.Errorf("wants %s: write it as the example file does (hubbub config example)", f.Kind)
}

func stringsOf(list []any) ([]string, bool) {
	words := make([]string, len(list))
	for i, e := range list {
		s, ok := e.(string)
		if !ok {
			return nil, false
		}
		words[i] = s
	}
	return words, true
}
