package appservice

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// maxFileBytes bounds a registration file. They have a few hundred bytes.
	maxFileBytes = 1 << 20
	// maxID bounds a service's ID in bytes: it is part of keys and of names.
	maxID = 100
	// minToken is the shortest token in bytes: services make 64 characters; what is
	// shorter than this was typed as an example.
	minToken = 8
)

// registration is a file. spec: application-service §Registration. Pointers tell
// what is missing from what is empty.
type registration struct {
	ID         *string   `yaml:"id"`
	URL        yaml.Node `yaml:"url"`
	ASToken    *string   `yaml:"as_token"`
	HSToken    *string   `yaml:"hs_token"`
	Sender     *string   `yaml:"sender_localpart"`
	Namespaces *struct {
		Users   []space `yaml:"users"`
		Aliases []space `yaml:"aliases"`
		Rooms   []space `yaml:"rooms"`
	} `yaml:"namespaces"`
	RateLimited *bool    `yaml:"rate_limited"`
	Protocols   []string `yaml:"protocols"`

	Ephemeral bool `yaml:"receive_ephemeral"`
	// The names of the same and of more before they were in the specification.
	OldEphemeral  bool `yaml:"de.sorunome.msc2409.push_ephemeral"`
	OldEphemeral2 bool `yaml:"push_ephemeral"`
	Encryption    bool `yaml:"org.matrix.msc3202"`
	Devices       bool `yaml:"device_management"`
	OldDevices    bool `yaml:"io.element.msc4190"`
}

type space struct {
	Regex     *string `yaml:"regex"`
	Exclusive *bool   `yaml:"exclusive"`
}

// Load reads registration files, for the users of a server. Each error is a
// sentence that names the file.
func Load(files []string, server string) (*Registry, error) {
	r := &Registry{byToken: make(map[[sha256.Size]byte]*Service), byID: make(map[string]*Service)}
	for _, file := range files {
		s, err := read(file, server)
		if err == nil {
			err = r.add(s)
		}
		if err != nil {
			return nil, fmt.Errorf("application service file %s: %w", file, err)
		}
	}
	return r, nil
}

func read(file, server string) (*Service, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	if len(b) > maxFileBytes {
		return nil, fmt.Errorf("it is larger than %d bytes and so no registration", maxFileBytes)
	}
	return parse(b, server)
}

func parse(b []byte, server string) (*Service, error) {
	var reg registration
	if err := yaml.Unmarshal(b, &reg); err != nil {
		return nil, fmt.Errorf("it is not a YAML mapping of the expected form: %w", err)
	}
	if err := reg.complete(); err != nil {
		return nil, err
	}
	s := &Service{
		ID: *reg.ID, asToken: sha256.Sum256([]byte(*reg.ASToken)), hsToken: *reg.HSToken, server: server,
		RateLimited: reg.RateLimited == nil || *reg.RateLimited,
		Ephemeral:   reg.Ephemeral || reg.OldEphemeral || reg.OldEphemeral2, StableEphemeral: reg.Ephemeral,
		Encryption: reg.Encryption, Devices: reg.Devices || reg.OldDevices, Protocols: reg.Protocols,
		LoginCode: "M_APPSERVICE_LOGIN_UNSUPPORTED",
	}
	if !reg.Devices {
		s.LoginCode = "IO.ELEMENT.MSC4190." + s.LoginCode
	}
	var err error
	if s.URL, err = reg.url(); err != nil {
		return nil, err
	}
	if s.Sender, err = ids.ParseUserID(string(ids.NewUserID(*reg.Sender, server))); err != nil || !historical(*reg.Sender) {
		return nil, fmt.Errorf("sender_localpart %q cannot be part of a user ID", *reg.Sender)
	}
	for _, n := range []struct {
		name string
		from []space
		to   *namespaces
	}{
		{"users", reg.Namespaces.Users, &s.users},
		{"aliases", reg.Namespaces.Aliases, &s.aliases},
		{"rooms", reg.Namespaces.Rooms, &s.rooms},
	} {
		if *n.to, err = compile(n.name, n.from); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// complete reports what is missing.
func (reg *registration) complete() error {
	for _, k := range []struct {
		name  string
		value *string
	}{{"id", reg.ID}, {"as_token", reg.ASToken}, {"hs_token", reg.HSToken}, {"sender_localpart", reg.Sender}} {
		if k.value == nil || *k.value == "" {
			return fmt.Errorf("the key %s is missing or empty", k.name)
		}
	}
	switch {
	case reg.URL.IsZero():
		return errors.New("the key url is missing; null stands for a service that is sent nothing")
	case reg.Namespaces == nil:
		return errors.New("the key namespaces is missing")
	case len(*reg.ID) > maxID || !utf8.ValidString(*reg.ID) || strings.ContainsAny(*reg.ID, "\x00|"):
		return fmt.Errorf("the id is longer than %d bytes, or has a | in it", maxID)
	case len(*reg.ASToken) < minToken || len(*reg.HSToken) < minToken:
		return fmt.Errorf("a token has fewer than %d characters, which anyone could guess", minToken)
	case *reg.ASToken == *reg.HSToken:
		return errors.New("as_token and hs_token are the same")
	}
	for _, p := range reg.Protocols {
		if p == "" {
			return errors.New("protocols has an empty name")
		}
	}
	return nil
}

func (reg *registration) url() (string, error) {
	if reg.URL.Tag == "!!null" || reg.URL.Value == "" {
		return "", nil
	}
	u, err := url.Parse(reg.URL.Value)
	if err != nil || reg.URL.Kind != yaml.ScalarNode || u.Scheme != "http" && u.Scheme != "https" ||
		u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("the url %q is not one of the form http://host:port", reg.URL.Value)
	}
	return strings.TrimSuffix(reg.URL.Value, "/"), nil
}

// compile reads namespaces. A regular expression begins where the name does; it
// need not end there, as other servers have it.
func compile(name string, list []space) (namespaces, error) {
	var out namespaces
	for i, n := range list {
		if n.Regex == nil || *n.Regex == "" {
			return nil, fmt.Errorf("entry %d of namespaces.%s has no regex", i+1, name)
		}
		if n.Exclusive == nil {
			return nil, fmt.Errorf("entry %d of namespaces.%s does not say whether it is exclusive", i+1, name)
		}
		re, err := regexp.Compile("^(?:" + *n.Regex + ")")
		if err != nil {
			return nil, fmt.Errorf("the regex %q of namespaces.%s cannot be used: %w", *n.Regex, name, err)
		}
		out = append(out, namespace{*n.Exclusive, *n.Regex, re})
	}
	return out, nil
}

// add registers a service unless it gets in the way of another.
func (r *Registry) add(s *Service) error {
	if other := r.byID[s.ID]; other != nil {
		return fmt.Errorf("the id %q is that of another file too", s.ID)
	}
	for _, other := range r.list {
		switch {
		case other.asToken == s.asToken:
			return fmt.Errorf("the as_token is that of %q too", other.ID)
		case other.Sender == s.Sender:
			return fmt.Errorf("the sender_localpart %q is that of %q too", s.Sender.Localpart(), other.ID)
		case other.users.exclusive(string(s.Sender)):
			return fmt.Errorf("the sender_localpart %q is in an exclusive namespace of %q", s.Sender.Localpart(), other.ID)
		case s.users.exclusive(string(other.Sender)):
			return fmt.Errorf("the sender_localpart %q of %q is in an exclusive namespace of this file", other.Sender.Localpart(), other.ID)
		}
		// Whether two regular expressions meet is not decided in general; that they
		// are the same is what happens, when a file was copied.
		for _, n := range []struct{ a, b namespaces }{
			{s.users, other.users}, {s.aliases, other.aliases},
		} {
			if text := clash(n.a, n.b); text != "" {
				return fmt.Errorf("the namespace %q is exclusive here and in %q", text, other.ID)
			}
		}
	}
	r.list = append(r.list, s)
	r.byToken[s.asToken], r.byID[s.ID] = s, s
	return nil
}

// clash returns a regular expression that is exclusive on both sides.
func clash(a, b namespaces) string {
	for i := range a {
		for j := range b {
			if a[i].exclusive && b[j].exclusive && a[i].text == b[j].text {
				return a[i].text
			}
		}
	}
	return ""
}

// ParseLocalpart returns the user ID with a localpart that a service chose. It may
// have what the specification calls historical: bridges name their users after
// names elsewhere. spec: appendices §Historical User IDs.
func ParseLocalpart(local, server string) (ids.UserID, error) {
	u, err := ids.ParseUserID(string(ids.NewUserID(local, server)))
	if err == nil && !historical(local) {
		err = fmt.Errorf("user ID: %w", ids.ErrInvalid)
	}
	return u, err
}

// historical reports whether a localpart has printable ASCII only, and no colon.
func historical(local string) bool {
	for _, c := range []byte(local) {
		if c < 0x21 || c > 0x7e || c == ':' {
			return false
		}
	}
	return local != ""
}
