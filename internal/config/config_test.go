package config_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/config"
)

var rewrite = flag.Bool("rewrite", false, "write the example file instead of comparing it")

const examplePath = "../../hubbub.example.toml"

func example(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := config.WriteExample(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExampleFileIsCurrent(t *testing.T) {
	want := example(t)
	if *rewrite {
		if err := os.WriteFile(examplePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("hubbub.example.toml is not what the struct says; run make gen")
	}
}

// TestExampleNamesEveryKey removes the # before each key: what is left must be a
// valid file that sets every key to its default.
func TestExampleNamesEveryKey(t *testing.T) {
	text := example(t)
	active := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAllString(text, "$1")
	if n, want := strings.Count(active, "\n")-strings.Count(text, "\n"), 0; n != want {
		t.Fatalf("lines were lost")
	}
	for _, f := range config.Fields() {
		if f.Help == "" {
			t.Errorf("%s has no help text", f.Key)
		}
		name := f.Key[strings.LastIndexByte(f.Key, '.')+1:]
		if !strings.Contains(active, "\n"+name+" = ") {
			t.Errorf("%s is not in the example", f.Key)
		}
	}
	for name, in := range map[string]string{"as it is": text, "every key active": active} {
		c, err := config.Load(config.Input{File: write(t, in)})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		// An absent list and an empty one are the same to every reader.
		if got, want := fmt.Sprintf("%+v", c), fmt.Sprintf("%+v", config.Default()); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		if len(line) > 120 {
			t.Errorf("line too long to read: %s", line)
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hubbub.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sample gives each kind of key a value that differs from every default, as
// words and as TOML.
func sample(t *testing.T, f config.Field) (word, toml string) {
	t.Helper()
	switch f.Key {
	case "server.store":
		return "postgres://h/a,postgres://h/b?x=1,2", `"postgres://h/a,postgres://h/b?x=1,2"`
	case "server.roles":
		return "worker,core,edge", `["worker", "core", "edge"]`
	case "server.join":
		return "", "[]"
	case "server.listen":
		return "127.0.0.1:1,127.0.0.1:2", `["127.0.0.1:1", "127.0.0.1:2"]`
	case "smtp.addr":
		return "mail.example:587", `"mail.example:587"`
	case "cluster.listen", "cluster.advertise":
		return "127.0.0.1:4", `"127.0.0.1:4"`
	case "server.metrics_listen":
		return "127.0.0.1:3", `"127.0.0.1:3"`
	case "server.public_base_url":
		return "https://a.example", `"https://a.example"`
	case "server.trusted_proxies", "limits.preview_allow", "push.allow":
		return "10.0.0.0/8,::1", `["10.0.0.0/8", "::1"]`
	case "presence.enabled", "jwt.create_users":
		return "false", "false"
	case "rtc.livekit_urls":
		return "https://a.example,https://b.example", `["https://a.example", "https://b.example"]`
	case "server.partitions":
		return "8", "8"
	case "limits.max_request_bytes", "media.max_upload_bytes":
		return "1000000", "1000000"
	case "media.store":
		return "s3://bucket?endpoint=http://127.0.0.1:7070", `"s3://bucket?endpoint=http://127.0.0.1:7070"`
	}
	switch f.Kind {
	case config.KindBool:
		return "true", "true"
	case config.KindInt:
		return "77", "77"
	case config.KindFloat:
		return "7.5", "7.5"
	case config.KindList:
		return "a,b", `["a", "b"]`
	}
	if f.Enum != nil {
		return f.Enum[len(f.Enum)-1], fmt.Sprintf("%q", f.Enum[len(f.Enum)-1])
	}
	return "x.example", `"x.example"`
}

// TestEveryKeyBySource sets each key alone by each source; the three results
// must agree, and differ from the default.
func TestEveryKeyBySource(t *testing.T) {
	for _, f := range config.Fields() {
		t.Run(f.Key, func(t *testing.T) {
			word, toml := sample(t, f)
			cut := strings.LastIndexByte(f.Key, '.')
			file := fmt.Sprintf("[%s]\n%s = %s\n", f.Key[:cut], f.Key[cut+1:], toml)
			inputs := map[string]config.Input{
				"file":        {File: write(t, file)},
				"environment": {Environ: []string{f.Env + "=" + word}},
				"flag":        {Flags: map[string][]string{f.Key: {word}}},
			}
			var want *config.Config
			for name, in := range inputs {
				c, err := config.Load(in)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if want == nil {
					want = &c
				}
				if !reflect.DeepEqual(c, *want) && fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", *want) {
					t.Errorf("%s: got %+v, another source gave %+v", name, c, *want)
				}
				unchanged := fmt.Sprintf("%+v", c) == fmt.Sprintf("%+v", config.Default())
				if fixed := f.Key == "server.join"; unchanged != fixed {
					t.Errorf("%s: the value did not arrive", name)
				}
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "[server]\nname = \"file\"\nlisten = [\"127.0.0.1:1\"]\n[log]\nlevel = \"warn\"\n[limits.send]\nburst = 1\n")
	c, err := config.Load(config.Input{
		File:    file,
		Environ: []string{"HUBBUB_SERVER_NAME=env", "HUBBUB_LOG_LEVEL=error", "PATH=/bin", "HUBBUB_CONFIG=/nowhere"},
		Flags:   map[string][]string{"server.name": {"flag"}, "server.listen": {"127.0.0.1:2", "127.0.0.1:3"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Server.Name != "flag" || c.Log.Level != config.LogError || c.Limits.Send.Burst != 1 {
		t.Errorf("got name %q, level %q, burst %d", c.Server.Name, c.Log.Level, c.Limits.Send.Burst)
	}
	if want := []string{"127.0.0.1:2", "127.0.0.1:3"}; !reflect.DeepEqual(c.Server.Listen, want) {
		t.Errorf("listen = %v, want the flags' %v alone", c.Server.Listen, want)
	}
	c, err = config.Load(config.Input{Environ: []string{"HUBBUB_CONFIG=" + file}})
	if err != nil || c.Server.Name != "file" {
		t.Errorf("HUBBUB_CONFIG: got name %q, %v", c.Server.Name, err)
	}
}

func TestTestMode(t *testing.T) {
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	tests := []struct {
		name string
		in   config.Input
		on   bool
		mode config.RegistrationMode
	}{
		{"off", config.Input{}, false, config.RegistrationToken},
		{"by flag", config.Input{Flags: map[string][]string{"server.test_mode": {"true"}}}, true, config.RegistrationOpen},
		{"by environment", config.Input{Environ: []string{"HUBBUB_SERVER_TEST_MODE=true"}}, true, config.RegistrationOpen},
		{
			"the flag stands above the file",
			config.Input{
				File:  write(t, "[registration]\nmode = \"closed\"\n"),
				Flags: map[string][]string{"server.test_mode": {"true"}},
			},
			true, config.RegistrationOpen,
		},
		{
			"a flag beside it wins",
			config.Input{Flags: map[string][]string{"server.test_mode": {"true"}, "registration.mode": {"token"}}},
			true, config.RegistrationToken,
		},
		{
			"a flag above its file wins",
			config.Input{
				File:  write(t, "[server]\ntest_mode = true\n"),
				Flags: map[string][]string{"registration.mode": {"closed"}},
			},
			true, config.RegistrationClosed,
		},
		{
			"switched off above its file",
			config.Input{
				File:  write(t, "[server]\ntest_mode = true\n"),
				Flags: map[string][]string{"server.test_mode": {"false"}},
			},
			false, config.RegistrationToken,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Load(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if c.Registration.Mode != tt.mode {
				t.Errorf("mode = %q, want %q", c.Registration.Mode, tt.mode)
			}
			got := []bool{
				c.Server.TestMode, c.Registration.AllowWeakPasswords, c.Registration.CheapPasswordHashes,
				c.Limits.NoRateLimits, reflect.DeepEqual(c.Limits.PreviewAllow, local),
				reflect.DeepEqual(c.Push.Allow, local),
				c.Media.LegacyDownload,
			}
			for i, on := range got {
				if on != tt.on {
					t.Errorf("switch %d = %v, want %v", i, on, tt.on)
				}
			}
		})
	}
}

// TestMistakes checks that each error names the key, where it was set, and what
// to do.
func TestMistakes(t *testing.T) {
	flags := func(key string, words ...string) config.Input {
		return config.Input{Flags: map[string][]string{key: words}}
	}
	file := func(text string) config.Input { return config.Input{File: write(t, text)} }
	env := func(vars ...string) config.Input { return config.Input{Environ: vars} }
	cluster := func(keys, sections string) config.Input {
		return file("[cluster]\nlisten = \"127.0.0.1:1\"\n" + keys + sections)
	}
	tests := []struct {
		name string
		in   config.Input
		want []string
	}{
		{"unknown key", file("[server]\nlisen = []\n"), []string{"server.lisen", "hubbub.toml", "did you mean server.listen?"}},
		{"unknown section", file("[limit.login]\nburst = 1\n"), []string{"limit", "did you mean limits?"}},
		{"unknown empty section", file("[sever]\n"), []string{"did you mean server?"}},
		{"unknown variable", env("HUBBUB_LOGLEVEL=info"), []string{"HUBBUB_LOGLEVEL", "did you mean HUBBUB_LOG_LEVEL?"}},
		{"section as value", file("server = 1\n"), []string{"write [server] once"}},
		{"section twice", file("[[server]]\nname = \"a\"\n"), []string{"write [server] once"}},
		{"table as value", file("[server.name]\na = 1\n"), []string{"server.name", "wants a string"}},
		{"string for number", file("[server]\npartitions = \"64\"\n"), []string{"server.partitions", "wants a whole number"}},
		{"string for list", file("[server]\nlisten = \"a:1\"\n"), []string{"server.listen", "wants a list of strings"}},
		{"list of numbers", file("[server]\nlisten = [1]\n"), []string{"server.listen", "wants a list of strings"}},
		{"fraction", file("[server]\npartitions = 6.4\n"), []string{"server.partitions", "wants a whole number"}},
		{"no TOML", file("[server]\n\nname = \n"), []string{"hubbub.toml", "line 3"}},
		{"key twice", file("[log]\nlevel = \"info\"\nlevel = \"info\"\n"), []string{"line 3"}},
		{"no number", env("HUBBUB_SERVER_PARTITIONS=many"), []string{"server.partitions", "environment HUBBUB_SERVER_PARTITIONS", "wants a whole number"}},
		{"no bool", env("HUBBUB_SERVER_PPROF=maybe"), []string{"server.pprof", "true or false"}},
		{"number too large", flags("server.partitions", "99999999999999999999"), []string{"wants a whole number"}},
		{"one value twice", flags("server.name", "a", "b"), []string{"flag --server-name", "once"}},
		{"enum", flags("registration.mode", "opne"), []string{"flag --registration", "open, token, closed", `nearest is "open"`}},
		{"enum in list", flags("server.roles", "edge,cor"), []string{"flag --roles", `nearest is "core"`}},
		{"flag of no key", flags("server.nme", "a"), []string{"server.nme"}},
		{"partitions", flags("server.partitions", "48"), []string{"server.partitions", "power of two"}},
		{"no partitions", flags("server.partitions", "0"), []string{"power of two"}},
		{"too many partitions", flags("server.partitions", "2048"), []string{"1024"}},
		{"empty name", flags("server.name", ""), []string{"server.name", "chat.example.org"}},
		{"URL as name", flags("server.name", "https://a.example"), []string{"URL", "chat.example.org"}},
		{"bad name", flags("server.name", "a_b"), []string{"letters, digits"}},
		{"bad name port", flags("server.name", "a:b"), []string{"port"}},
		{"bad name port 0", flags("server.name", "a:0"), []string{"port"}},
		{"bad name IPv6", flags("server.name", "[::g]"), []string{"IPv6"}},
		{"unclosed IPv6", flags("server.name", "[::1"), []string{"IPv6"}},
		{"long name", flags("server.name", strings.Repeat("a", 201)), []string{"longer"}},
		{"no listen", flags("server.listen"), []string{"server.listen", "127.0.0.1:8008"}},
		{"no port", flags("server.listen", "127.0.0.1"), []string{"host:port"}},
		{"bad port", flags("server.listen", "127.0.0.1:70000"), []string{"port"}},
		{"bad host", flags("server.listen", "a b:1"), []string{"host name"}},
		{"listen twice", flags("server.listen", "a:1,a:1"), []string{"twice"}},
		{"metrics in public", flags("server.metrics_listen", "127.0.0.1:8008"), []string{"server.metrics_listen", "its own"}},
		{"bad metrics", flags("server.metrics_listen", "9008"), []string{"host:port"}},
		{"base URL", flags("server.public_base_url", "chat.example.org"), []string{"https://chat.example.org"}},
		{"base URL query", flags("server.public_base_url", "https://a/?b"), []string{"host and path"}},
		{"base URL slash", flags("server.public_base_url", "https://a/"), []string{"write https://a"}},
		{"no data", flags("server.data_dir", ""), []string{"directory"}},
		{"grace", flags("server.shutdown_grace_ms", "-1"), []string{"0 to 600000"}},
		{"empty file name", file("[server]\nappservice_files = [\"\"]\n"), []string{"empty name"}},
		{"store", flags("server.store", "mysql://u:pw@h/d"), []string{"server.store", `use "embedded"`}},
		{"join", flags("server.join", "a:1"), []string{"server.join", "cluster.listen"}},
		{"cluster address", flags("cluster.listen", "nowhere"), []string{"cluster.listen"}},
		{"short lease", cluster("lease_ms = 10\n", ""), []string{"cluster.lease_ms", "1000"}},
		{"cluster roles", cluster("", "[server]\nroles = []\n"), []string{"server.roles", "nothing"}},
		{"cluster join", cluster("", "[server]\njoin = [\"nowhere\"]\n"), []string{"server.join"}},
		{"cluster TLS", cluster("tls_key = \"k\"\n", ""), []string{"tls_ca"}},
		{"NATS twice", cluster("nats_url = \"nats://h\"\n", ""), []string{"cluster.nats_url"}},
		{"role twice", flags("server.roles", "edge,core,worker,core"), []string{"twice"}},
		{"role missing", flags("server.roles", "edge,worker"), []string{`lacks "core"`}},
		{"network", flags("server.trusted_proxies", "10.0.0"), []string{"10.0.0.0/8"}},
		{"network bits", flags("server.trusted_proxies", "10.0.0.1/8"), []string{`write "10.0.0.0/8"`}},
		{"rate", flags("limits.send.per_second", "0"), []string{"limits.send.per_second", "no_rate_limits"}},
		{"rate NaN", flags("limits.send.per_second", "NaN"), []string{"above 0"}},
		{"burst", flags("limits.login.burst", "0"), []string{"limits.login.burst", "1 or more"}},
		{"body", flags("limits.max_request_bytes", "10"), []string{"131072"}},
		{"media store", flags("media.store", "s3://key:pw@bucket"), []string{"media.store", `"files"`}},
		{"no bucket", flags("media.store", "s3://"), []string{"media.store", "s3://bucket"}},
		{"upload", flags("media.max_upload_bytes", "10"), []string{"65536"}},
		{"delay", flags("limits.max_event_delay_ms", "-1"), []string{"limits.max_event_delay_ms", "use 0 to"}},
		{"delayed events", flags("limits.max_delayed_events", "0"), []string{"limits.max_delayed_events", "use 1 to"}},
		{"call service", flags("rtc.livekit_urls", "x"), []string{"rtc.livekit_urls", "http or https"}},
		{"lifetime", flags("retention.default_max_lifetime_ms", "-1"), []string{"retention.default_max_lifetime_ms", "use 0 to"}},
		{"lifetimes", file("[retention]\nmin_lifetime_ms = 2\nmax_lifetime_ms = 1\n"), []string{"retention.min_lifetime_ms", "lower it"}},
		{"sweep", flags("retention.sweep_interval_ms", "0"), []string{"retention.sweep_interval_ms", "use 50 to"}},
		{"two at once", env("HUBBUB_A=1", "HUBBUB_LOG_LEVEL=loud"), []string{"HUBBUB_A", "log.level"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := config.Load(tt.in)
			var ce *config.Error
			if !errors.As(err, &ce) {
				t.Fatalf("got %v, want a *config.Error", err)
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q does not say %q", err, w)
				}
			}
			if strings.Contains(err.Error(), "pw") {
				t.Errorf("%q repeats a password", err)
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	for _, in := range []map[string][]string{
		{"server.name": {"a.example:8448"}},
		{"server.name": {"127.0.0.1:1"}},
		{"server.name": {"[::1]"}},
		{"server.name": {"[2001:db8::1]:8448"}},
		{"server.listen": {":0,[::1]:0", ":0"}},
		{"server.metrics_listen": {""}},
		{"server.listen": {"127.0.0.1:0"}, "server.metrics_listen": {"127.0.0.1:0"}},
		{"server.public_base_url": {"https://a.example/chat"}},
		{"server.shutdown_grace_ms": {"0"}},
	} {
		if _, err := config.Load(config.Input{Flags: in}); err != nil {
			t.Errorf("%v: %v", in, err)
		}
	}
}

func TestMissingFile(t *testing.T) {
	_, err := config.Load(config.Input{File: filepath.Join(t.TempDir(), "none.toml")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want one that wraps os.ErrNotExist", err)
	}
}

// TestForeignVariables: Kubernetes sets variables for services named hubbub and
// hubbub-metrics in each pod; they are no mistake of the operator.
func TestForeignVariables(t *testing.T) {
	_, err := config.Load(config.Input{Environ: []string{
		"HUBBUB_SERVICE_HOST=10.0.0.1", "HUBBUB_SERVICE_PORT=80", "HUBBUB_SERVICE_PORT_HTTP=80", "HUBBUB_PORT=tcp://10.0.0.1:80",
		"HUBBUB_PORT_80_TCP=tcp://10.0.0.1:80", "HUBBUB_PORT_80_TCP_PROTO=tcp", "HUBBUB_METRICS_PORT_9008_TCP_ADDR=10.0.0.1",
		"HUBBUB_METRICS_SERVICE_PORT=1", "HUBBUB_TEST_KILLS=50",
	}})
	if err != nil {
		t.Error(err)
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	for _, f := range config.Fields() {
		for _, name := range []string{f.Env, f.Flag, f.ShortFlag} {
			if other, dup := seen[name]; dup && name != "" {
				t.Errorf("%s and %s are both called %s", f.Key, other, name)
			}
			seen[name] = f.Key
		}
		// Such a key could not be told from a foreign variable.
		if regexp.MustCompile(`_(PORT|SERVICE_HOST)$`).MatchString(f.Env) || strings.HasPrefix(f.Env, "HUBBUB_TEST_") {
			t.Errorf("%s is a name that Load leaves to others", f.Env)
		}
	}
}

// TestStableFlags holds what other people's scripts rely on.
func TestStableFlags(t *testing.T) {
	want := map[string]string{
		"listen": "server.listen", "data": "server.data_dir", "server-name": "server.name", "store": "server.store",
		"cluster-listen": "cluster.listen", "join": "server.join", "roles": "server.roles", "appservice": "server.appservice_files", "registration": "registration.mode",
		"allow-weak-passwords": "registration.allow_weak_passwords", "registration-shared-secret": "registration.shared_secret",
		"no-rate-limits": "limits.no_rate_limits", "preview-allow": "limits.preview_allow", "push-allow": "push.allow", "test-mode": "server.test_mode",
		"metrics-listen": "server.metrics_listen", "log-level": "log.level",
	}
	got := map[string]string{}
	for _, f := range config.Fields() {
		if f.ShortFlag != "" {
			got[f.ShortFlag] = f.Key
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// TestRatesAreComplete finds a Rate field that Rates forgets or misnames.
func TestRatesAreComplete(t *testing.T) {
	var l config.Limits
	v := reflect.ValueOf(&l).Elem()
	want := map[string]config.Rate{}
	for i := range v.NumField() {
		if v.Field(i).Type() == reflect.TypeFor[config.Rate]() {
			r := config.Rate{PerSecond: float64(i), Burst: i}
			v.Field(i).Set(reflect.ValueOf(r))
			want[v.Type().Field(i).Tag.Get("toml")] = r
		}
	}
	if got := l.Rates(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	l.NoRateLimits = true
	if got := l.Rates(); len(got) != 0 {
		t.Errorf("switched off, but got %v", got)
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	const canary = "canary-7d1"
	c, err := config.Load(config.Input{Environ: []string{"HUBBUB_REGISTRATION_SHARED_SECRET=" + canary}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Registration.SharedSecret.Reveal() != canary {
		t.Fatal("the secret did not arrive")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%v %+v %#v %s %q ", c, c, c, c.Registration.SharedSecret, c.Registration.SharedSecret)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "c", c, "s", c.Registration.SharedSecret)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "c", c, "s", c.Registration.SharedSecret)
	if strings.Contains(b.String(), canary) {
		t.Errorf("printed: %s", b.String())
	}
}

func TestAccessors(t *testing.T) {
	c := config.Default()
	if c.Server.ShutdownGrace() != 10*time.Second {
		t.Errorf("ShutdownGrace = %v", c.Server.ShutdownGrace())
	}
	for l, want := range map[config.LogLevel]slog.Level{
		config.LogDebug: slog.LevelDebug, config.LogInfo: slog.LevelInfo, config.LogWarn: slog.LevelWarn, config.LogError: slog.LevelError,
	} {
		if l.Slog() != want {
			t.Errorf("%s is %v, want %v", l, l.Slog(), want)
		}
	}
	c.Log.Level = "loud"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "log.level") {
		t.Errorf("Validate of a bad level: %v", err)
	}
	if d := config.Default(); d.Validate() != nil {
		t.Errorf("the default is invalid: %v", d.Validate())
	}
}

// FuzzFile: no text of a file makes Load panic, and every refusal has a reason.
func FuzzFile(f *testing.F) {
	f.Add("[server]\nname = \"a\"\n")
	f.Add("[limits.login]\nburst = 1\nper_second = 1e400\n")
	f.Add("a = [[{b = 1}]]\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, err := config.Load(config.Input{File: write(t, text)})
		var ce *config.Error
		if err != nil && (!errors.As(err, &ce) || len(ce.Problems) == 0) {
			t.Errorf("%v", err)
		}
	})
}

func TestSMTP(t *testing.T) {
	good := func() config.Config {
		c := config.Default()
		c.SMTP.Addr, c.SMTP.From = "mail.example.org:587", "Chat <chat@example.org>"
		return c
	}
	c := good()
	if err := c.Validate(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	for key, change := range map[string]func(*config.Config){
		"smtp.addr":       func(c *config.Config) { c.SMTP.Addr = "mail.example.org" },
		"smtp.from":       func(c *config.Config) { c.SMTP.From = "nobody" },
		"smtp.password":   func(c *config.Config) { c.SMTP.User = "x" },
		"smtp.security":   func(c *config.Config) { c.SMTP.User, c.SMTP.Password, c.SMTP.Security = "x", "y", config.SMTPNone },
		"smtp.next_links": func(c *config.Config) { c.SMTP.NextLinks = []string{"app.example.org"} },
	} {
		c := good()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestPostgresURLs(t *testing.T) {
	for store, want := range map[string][]string{
		"embedded":                              nil,
		"postgres://u:p@h/a":                    {"postgres://u:p@h/a"},
		"postgres://h/a,postgresql://h/b":       {"postgres://h/a", "postgresql://h/b"},
		"postgres://h1:1,h2:2/a,postgres://h/b": {"postgres://h1:1,h2:2/a", "postgres://h/b"},
		"embedded,postgres://h/a":               nil,
	} {
		if got := (&config.Server{Store: store}).PostgresURLs(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", store, got, want)
		}
	}
}
