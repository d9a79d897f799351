package security

import (
	"go/version"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

// floors are the versions below which a module has a published defect that matters
// here, by the path of the module: also those that come with others.
var floors = map[string]string{
	"github.com/jackc/pgx/v5":            "v5.9.0",  // CVE-2026-33815, CVE-2026-33816: memory
	"github.com/nats-io/nats-server/v2":  "v2.12.6", // CVE-2026-27889, CVE-2026-33219: ends before anyone signed in
	"golang.org/x/net":                   "v0.55.0", // parsers of HTML, HTTP/2
	"github.com/go-jose/go-jose/v4":      "v4.0.5",  // CVE-2024-28180, CVE-2025-27144: memory
	"github.com/go-jose/go-jose/v3":      "v3.0.4",
	"github.com/golang-jwt/jwt/v5":       "v5.2.2", // CVE-2025-30204: memory
	"github.com/golang-jwt/jwt/v4":       "v4.5.2",
	"github.com/gorilla/websocket":       "v1.4.1", // CVE-2020-27813: the length of a frame
	"github.com/microcosm-cc/bluemonday": "v1.0.16",
}

// goFloor is the oldest Go: CVE-2026-56853, HTTP/2 in clear text without a time limit.
const goFloor = "go1.26.6"

// belowFloor names the modules of a go.mod that are older than they may be, and says
// how many of its modules have a floor.
func belowFloor(t *testing.T, text []byte) (bad []string, judged int) {
	t.Helper()
	mod, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if mod.Go == nil || version.Compare("go"+mod.Go.Version, goFloor) < 0 {
		bad = append(bad, "go")
	}
	for _, r := range mod.Require {
		floor, ok := floors[r.Mod.Path]
		if !ok {
			continue
		}
		judged++
		if semver.Compare(r.Mod.Version, floor) < 0 {
			bad = append(bad, r.Mod.String())
		}
	}
	for _, r := range mod.Replace {
		if _, ok := floors[r.Old.Path]; ok {
			bad = append(bad, "replaced "+r.Old.String())
		}
	}
	return bad, judged
}

// TestDependencyFloors: no module is of a version whose defects are known. It needs
// no network, hence knows the past only; govulncheck in CI knows more.
func TestDependencyFloors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	bad, judged := belowFloor(t, text)
	if len(bad) > 0 || judged < 4 {
		t.Errorf("below the floor: %q; %d modules have one", bad, judged)
	}
	old := "module x\n\ngo 1.26.5\n\nrequire github.com/jackc/pgx/v5 v5.8.9\nreplace golang.org/x/net => ../net\n"
	if bad, judged := belowFloor(t, []byte(old)); strings.Join(bad, ", ") != "go, github.com/jackc/pgx/v5@v5.8.9, replaced golang.org/x/net" || judged != 1 {
		t.Errorf("of old ones these are found: %q", bad)
	}
}
