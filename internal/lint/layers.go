package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// layer is one row of the table: packages in the order in which they stand. A
// package may import what stands before it, in its own row or a lower one; a
// directory stands for the packages below it too.
type layer struct {
	name string
	dirs []string
	// why is the reason that keeps what stands behind out.
	why string
}

// layers is the table, from the bottom.
func layers() []layer {
	return []layer{
		{
			"L0 vocabulary",
			[]string{"internal/ids", "internal/merr", "internal/event", "internal/clock", "internal/invariant", "internal/longlock"},
			"the vocabulary knows nothing of what is said with it, so that everything can use it",
		},
		{
			"L1 pure logic",
			[]string{"internal/roomstate", "internal/pushrules", "internal/textindex"},
			"domain logic is pure: what it needs comes in as arguments, so that it can be proven by tables and replayed",
		},
		{
			"L2 storage and bus",
			[]string{"internal/storage", "internal/tables", "internal/damage", "internal/bus", "internal/blob", "internal/ratelimit"},
			"a backend stores and carries bytes; what they mean is decided above, so that backends can be exchanged",
		},
		{
			"L3 engine",
			[]string{"internal/wire", "internal/partition", "internal/cluster", "internal/consumer"},
			"the engine orders and commits commands without knowing them, so that a new feature does not touch it",
		},
		{
			"L4 domain services",
			[]string{"internal/room", "internal/report", "internal/account", "internal/feed", "internal/delayed", "internal/purge", "internal/auth", "internal/media", "internal/push", "internal/assist", "internal/appservice", "internal/mailer", "internal/contact", "internal/farewell", "internal/sso", "internal/search", "internal/importer"},
			"a service does not know which transport asks, so that HTTP, WebSocket and bots are served alike",
		},
		{
			"L5 transport",
			[]string{"internal/api", "internal/gateway"},
			"a transport is put together by app and must not reach back into it",
		},
		{
			"L6 wiring",
			[]string{"internal/app"},
			"app is the only wiring; what imports it cannot be part of it",
		},
	}
}

// beside lists the packages beside the layers: what of the module each may
// import, and which packages may import it (nil: see why).
func beside() []besideRule {
	l0 := []string{"internal/ids", "internal/merr", "internal/event", "internal/clock", "internal/invariant"}
	// What both sides of the wire need: frames, and reading from many idle sockets.
	idle := "internal/idleread"
	wire := []string{"internal/gateway/wire", idle}
	return []besideRule{
		{
			"internal/obs", l0,
			[]string{
				"internal/storage", "internal/bus", "internal/blob", "internal/partition", "internal/cluster", "internal/consumer", "internal/room", "internal/account",
				"internal/feed", "internal/auth", "internal/media", "internal/push", "internal/assist", "internal/api", "internal/gateway",
				"internal/app", "internal/bench", "internal/sim", "cmd",
			},
			"metrics and logs are for packages that do something in the world, not for vocabulary and pure logic",
		},
		{
			"internal/config", l0,
			[]string{"internal/api", "internal/gateway", "internal/app", "internal/bench", "cmd"},
			"packages below take options of their own, so that each can be tested and used alone",
		},
		{
			idle, nil,
			[]string{"internal/api", "internal/gateway", "internal/wsclient"},
			"it reads connections, whatever they are for, and is for those who have many that are idle",
		},
		{
			"internal/wsclient", slices.Concat(l0, wire),
			[]string{"internal/bench", "test"},
			"it is the other side of the wire and shares nothing with the server but the frames",
		},
		{
			"internal/bench", slices.Concat(l0, wire, []string{"internal/obs", "internal/config", "internal/wsclient"}),
			[]string{"cmd"},
			"it measures from outside, as a client, in a process of its own",
		},
		{
			"internal/sim",
			[]string{"internal", "test/history"},
			[]string{"cmd"},
			"a simulation runs the server; the server does not know of it",
		},
		{
			// Below test/: whole servers, seen from outside.
			"test",
			[]string{"internal/app", "internal/config", "internal/wsclient", "internal/lint/skip", "internal/lint/ondemand", "internal/mailer/mailtest", "test/history", "test/caller"},
			nil,
			"it tests the server as its clients see it, and must not depend on how it is made",
		},
		{
			"internal/lint", nil, nil,
			"it is about the source, not part of the server",
		},
		{
			"bench", nil, nil,
			"it reads what benchmarks print",
		},
		{
			"web", nil,
			[]string{"internal/app"},
			"the bundle is handed to the transport as an fs.FS, so that the transport can be tested without it",
		},
		{
			"cmd",
			[]string{"internal/app", "internal/config", "internal/obs", "internal/bench", "internal/sim"},
			nil,
			"it has flags and exit codes only; everything else belongs into app",
		},
	}
}

type besideRule struct {
	dir     string
	imports []string
	by      []string
	why     string
}

// testSupport are packages made for tests: suites and faults. They may import
// backends, and only tests and each other may import them.
func testSupport(pkg string) bool {
	for _, dir := range []string{
		"internal/storage/storagetest", "internal/storage/pgstore/pgtest", "internal/cluster/clustertest", "internal/storage/faultstore", "internal/bus/bustest", "internal/bus/faultbus", "internal/bus/faultnet",
		"internal/blob/blobtest", "internal/lint/skip", "internal/lint/ondemand", "internal/mailer/mailtest", "internal/push/webpush/webpushtest", "internal/sim",
	} {
		if inside(pkg, dir) {
			return true
		}
	}
	return inside(pkg, "internal/sim")
}

// backend reports whether a package is one of several that fill an interface.
func backend(pkg string) bool {
	return slices.ContainsFunc([]string{"internal/storage/", "internal/bus/", "internal/blob/"}, func(dir string) bool {
		return strings.HasPrefix(pkg, dir)
	}) && !testSupport(pkg)
}

// pure reports whether a package is pure logic.
func pure(pkg string) bool { return insideAny(pkg, layers()[1].dirs) }

// pureForbids lists what pure logic must not import of the standard library.
// net/http is not in it, for the names of its status codes; see Calls.
func pureForbids() []string {
	return []string{
		"context", "crypto/rand", "io/fs", "log", "log/slog", "math/rand", "math/rand/v2", "net", "os", "sync", "sync/atomic",
		"time",
	}
}

// confined are modules that one part of the tree wraps for the rest.
func confined() map[string][]string {
	return map[string][]string{
		"github.com/cockroachdb/pebble": {"internal/storage/pebblestore"},
		"github.com/jackc/pgx":          {"internal/storage/pgstore", "internal/bench"},
		"github.com/pressly/goose":      {"internal/storage/pgstore"},
		"github.com/nats-io":            {"internal/bus/natsbus"},
		"github.com/minio/minio-go":     {"internal/blob/s3blob"},
		"golang.org/x/image":            {"internal/media"},
		"code.dny.dev/ssrf":             {"internal/media", "internal/push"},
		"github.com/gobwas/ws":          {"internal/gateway", "internal/wsclient", "internal/bench"},
		"github.com/alecthomas/kong":    {"cmd", "internal/bench"},
		"github.com/BurntSushi/toml":    {"internal/config"},
		"github.com/wneessen/go-mail":   {"internal/mailer"},
		"github.com/coreos/go-oidc":     {"internal/sso"},
		"github.com/go-jose/go-jose":    {"internal/auth"},
	}
}

// Layers checks every import against the table. Test files are free, save that
// they too must be in a package that the table knows.
func Layers(t *Tree) []Finding {
	var found []Finding
	unknown := map[string]bool{}
	for _, f := range t.Go {
		if _, ok := rank(f.Pkg); !ok && besideOf(f.Pkg) == nil && !unknown[f.Pkg] {
			unknown[f.Pkg] = true
			found = append(found, Finding{f.Pkg, "the layer table does not know this package; give it a place in internal/lint/layers.go"})
		}
		if f.Test {
			continue
		}
		for _, spec := range f.AST.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue // the parser accepted it
			}
			if why := mayNot(f.Pkg, name); why != "" {
				found = append(found, Finding{t.at(spec.Pos()), fmt.Sprintf("%s may not import %s because %s", f.Pkg, strings.TrimPrefix(name, Module+"/"), why)})
			}
		}
	}
	return inOrder(found)
}

// mayNot says why a package may not import another, or "".
func mayNot(from, name string) string {
	to, ours := strings.CutPrefix(name, Module+"/")
	if !ours {
		return mayNotForeign(from, name)
	}
	if inside(from, to) || (inside(to, from) && !backend(to) && !testSupport(to)) {
		return "" // a package and its own parts, unless the part is a choice
	}
	switch {
	case testSupport(to) && !testSupport(from):
		return "it is made for tests"
	case testSupport(from):
		return ""
	case from == "internal/bus/natsbus" && to == "internal/bus/membus":
		return "" // the part of it that does not leave the process
	case backend(to) && !inside(from, "internal/app") && !inside(from, to):
		return "backends are chosen by app; everyone else sees the interface, so that a backend can be exchanged"
	case inside(from, "internal/api") && strings.HasPrefix(to, "internal/api/"):
		return "modules of the API do not know each other; what two need belongs into internal/api or a service below"
	}
	return mayNotByTable(from, to)
}

func mayNotByTable(from, to string) string {
	if b := besideOf(to); b != nil {
		if insideAny(from, b.by) || besideAllows(from, to) {
			return ""
		}
		return b.why
	}
	if b := besideOf(from); b != nil {
		if insideAny(to, b.imports) {
			return ""
		}
		return b.why
	}
	low, ok := rank(from)
	high, known := rank(to)
	if !ok || !known || high < low {
		return "" // an unknown package is a finding of its own
	}
	return layerWhy(low)
}

// besideAllows reports whether the importer's own row names the imported.
func besideAllows(from, to string) bool {
	b := besideOf(from)
	return b != nil && insideAny(to, b.imports)
}

func mayNotForeign(from, name string) string {
	for module, dirs := range confined() {
		if (name == module || strings.HasPrefix(name, module+"/")) && !insideAny(from, dirs) {
			return strings.Join(dirs, " and ") + " wraps it for everyone, so that it can be exchanged in one place"
		}
	}
	if pure(from) && slices.Contains(pureForbids(), name) {
		return layers()[1].why
	}
	return ""
}

// rank is the place of a package in the table.
func rank(pkg string) (int, bool) {
	n := 0
	for _, l := range layers() {
		for _, dir := range l.dirs {
			if inside(pkg, dir) {
				return n, true
			}
			n++
		}
	}
	return 0, false
}

func layerWhy(rank int) string {
	for _, l := range layers() {
		if rank < len(l.dirs) {
			return "it stands in or above its own layer (" + l.name + "): " + l.why
		}
		rank -= len(l.dirs)
	}
	return ""
}

func besideOf(pkg string) *besideRule {
	for _, b := range beside() {
		if inside(pkg, b.dir) {
			return &b
		}
	}
	return nil
}

func insideAny(pkg string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return inside(pkg, d) })
}
