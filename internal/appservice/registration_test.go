package appservice

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// good is a registration that the errors below are made of.
const good = `
id: irc
url: "http://127.0.0.1:1234/"
as_token: as-token-of-irc
hs_token: hs-token-of-irc
sender_localpart: ircbot
rate_limited: false
protocols: [irc]
receive_ephemeral: true
namespaces:
  users:
    - {exclusive: true, regex: "@_irc_.*"}
  aliases:
    - {exclusive: false, regex: "#_irc_.*:h$"}
  rooms: []
`

func write(t *testing.T, texts ...string) []string {
	t.Helper()
	var files []string
	dir := t.TempDir()
	for i, text := range texts {
		file := filepath.Join(dir, string(rune('a'+i))+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

func load(t *testing.T, texts ...string) *Registry {
	t.Helper()
	r, err := Load(write(t, texts...), "h")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// other is good with other names; with replaces more.
func other(with ...string) string {
	return strings.NewReplacer(append(with, "id: irc", "id: xmpp", "of-irc", "of-xmpp", "ircbot", "xmppbot", "_irc_", "_xmpp_")...).Replace(good)
}

func TestLoad(t *testing.T) {
	r := load(t, good, other("rate_limited: false", ""))
	s := r.ByToken("as-token-of-irc")
	switch {
	case s == nil || s != r.ByID("irc") || len(r.All()) != 2:
		t.Fatalf("services %v", r.All())
	case s.URL != "http://127.0.0.1:1234" || s.Sender != "@ircbot:h" || s.RateLimited || !s.Ephemeral || !s.StableEphemeral || s.Encryption || s.Devices:
		t.Errorf("%+v", s)
	case !r.ByID("xmpp").RateLimited:
		t.Error("without the key, a service is under the limits")
	case r.ByToken("hs-token-of-irc") != nil || r.ByToken("") != nil || r.ByToken("as-token-of-ir") != nil:
		t.Error("a wrong token is somebody's")
	}
	for user, is := range map[string]bool{
		"@ircbot:h": true, "@_irc_a:h": true, "@_irc_a:elsewhere": false, "@x_irc_a:h": false, "@_xmpp_a:h": false, "@ircbot:elsewhere": false,
	} {
		if s.HasUser(ids.UserID(user)) != is {
			t.Errorf("HasUser(%s) is not %v", user, is)
		}
	}
	if !s.HasAlias("#_irc_x:h") || s.HasAlias("#_irc_x:hh") || s.HasRoom("!_irc_:h") {
		t.Error("aliases or rooms")
	}
	xmpp := r.ByID("xmpp")
	for user, reserved := range map[string]bool{"@ircbot:h": true, "@_irc_a:h": true, "@alice:h": false, "@_irc_a:elsewhere": false} {
		if r.ReservedUser(ids.UserID(user), nil) != reserved || r.ReservedUser(ids.UserID(user), xmpp) != reserved || r.ReservedUser(ids.UserID(user), s) {
			t.Errorf("ReservedUser(%s) is not %v", user, reserved)
		}
	}
	if r.ReservedAlias("#_irc_x:h", nil) {
		t.Error("an alias of a namespace that is not exclusive is reserved")
	}
}

func TestUnstableKeys(t *testing.T) {
	s := load(t, strings.Replace(good, "receive_ephemeral: true",
		"de.sorunome.msc2409.push_ephemeral: true\norg.matrix.msc3202: true\nio.element.msc4190: true", 1)).All()[0]
	if !s.Ephemeral || s.StableEphemeral || !s.Encryption || !s.Devices || s.LoginCode != "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED" {
		t.Errorf("%+v", s)
	}
	s = load(t, good+"device_management: true\n").All()[0]
	if !s.Devices || s.LoginCode != "M_APPSERVICE_LOGIN_UNSUPPORTED" {
		t.Errorf("%+v", s)
	}
	if s = load(t, strings.Replace(good, `"http://127.0.0.1:1234/"`, "null", 1)).All()[0]; s.URL != "" {
		t.Errorf("URL %q of null", s.URL)
	}
}

// Whatever is wrong in a file is said in words, with the file's name.
func TestRefused(t *testing.T) {
	without := func(key string) string {
		var out []string
		for line := range strings.Lines(good) {
			if !strings.HasPrefix(line, key+":") {
				out = append(out, line)
			}
		}
		return strings.Join(out, "")
	}
	with := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatalf("no %q", from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for name, c := range map[string]struct {
		files []string
		says  string
	}{
		"no YAML":               {[]string{"{"}, "not a YAML mapping"},
		"a list":                {[]string{"- id: x"}, "not a YAML mapping"},
		"a number for a string": {[]string{with("protocols: [irc]", "protocols: irc")}, "not a YAML mapping"},
		"empty":                 {[]string{""}, "id is missing"},
		"no id":                 {[]string{without("id")}, "id is missing"},
		"no as_token":           {[]string{without("as_token")}, "as_token is missing"},
		"no hs_token":           {[]string{without("hs_token")}, "hs_token is missing"},
		"no sender":             {[]string{without("sender_localpart")}, "sender_localpart is missing"},
		"no url":                {[]string{without("url")}, "url is missing"},
		"no namespaces":         {[]string{good[:strings.Index(good, "namespaces:")]}, "namespaces is missing"},
		"a url without a host":  {[]string{with("http://127.0.0.1:1234/", "localhost:1")}, "the url"},
		"a url of a file":       {[]string{with("http://127.0.0.1:1234/", "file:///x")}, "the url"},
		"an id with a bar":      {[]string{with("id: irc", "id: a|b")}, "has a |"},
		"a short token":         {[]string{with("as-token-of-irc", "x")}, "could guess"},
		"one token for both":    {[]string{with("hs-token-of-irc", "as-token-of-irc")}, "are the same"},
		"a bad sender":          {[]string{with("ircbot", "irc bot")}, "user ID"},
		"a bad regex":           {[]string{with("@_irc_.*", "@_irc_(")}, "cannot be used"},
		"a namespace without":   {[]string{with(`, regex: "@_irc_.*"`, "")}, "no regex"},
		"not said if exclusive": {[]string{with(`exclusive: true, `, "")}, "whether it is exclusive"},
		"an empty protocol":     {[]string{with("[irc]", `[""]`)}, "empty name"},
		"the same id":           {[]string{good, other("id: irc", "id: irc")}, "the id"},
		"the same token":        {[]string{good, other("as-token-of-irc", "as-token-of-irc")}, "the as_token"},
		"the same sender":       {[]string{good, other("ircbot", "ircbot")}, "sender_localpart"},
		"another's sender":      {[]string{good, other("ircbot", "_irc_bot")}, "in an exclusive namespace of"},
		"a sender taken":        {[]string{other("ircbot", "_irc_bot"), good}, "in an exclusive namespace of this file"},
		"one namespace twice":   {[]string{good, other("_irc_", "_irc_")}, "is exclusive here and in"},
	} {
		files := write(t, c.files...)
		_, err := Load(files, "h")
		if err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), files[len(files)-1]) {
			t.Errorf("%s: %v, want the file and %q", name, err, c.says)
		}
	}
	if _, err := Load([]string{"/nonexistent.yaml"}, "h"); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("no file: %v", err)
	}
	if _, err := Load(write(t, good+"# "+strings.Repeat("x", maxFileBytes)), "h"); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestParseLocalpart(t *testing.T) {
	for local, ok := range map[string]bool{
		"_irc_Nick[away]": true, "a": true, "": false, "a b": false, "a:b": false, "é": false, strings.Repeat("a", 300): false,
	} {
		if u, err := ParseLocalpart(local, "h"); (err == nil) != ok {
			t.Errorf("ParseLocalpart(%q) = %q, %v", local, u, err)
		}
	}
}

func TestParseInstance(t *testing.T) {
	if in, ok := ParseInstance("irc|free|node"); !ok || in != (Instance{"irc", "free|node"}) || in.String() != "irc|free|node" {
		t.Errorf("%+v %v", in, ok)
	}
	for _, s := range []string{"", "irc", "|x", "irc|"} {
		if _, ok := ParseInstance(s); ok {
			t.Errorf("%q is an instance", s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("namespaces: {users: [{}]}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse(b, "h")
		if err == nil && (s.ID == "" || s.Sender.Server() != "h") {
			t.Errorf("%+v", s)
		}
	})
}
