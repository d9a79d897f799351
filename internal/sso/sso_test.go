package sso

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/lint/ondemand"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseProvider(t *testing.T) {
	p, err := ParseProvider([]byte(`{"id":"a","name":"A","issuer":"https://a.example","client_id":"c"}`))
	if err != nil || p.UserClaim != "preferred_username" || p.NameClaim != "name" || len(p.Scopes) != 2 {
		t.Errorf("the least: %+v %v", p, err)
	}
	for _, bad := range []string{
		``, `[]`, `{"id":"a"}`, `{"id":"a","name":"A","issuer":"https://a.example"}`,
		`{"id":"a/b","name":"A","issuer":"https://a.example","client_id":"c"}`, `{"id":"..","name":"A","issuer":"https://a.example","client_id":"c"}`,
		`{"id":"a","name":"A","issuer":"https://a.example","client_id":"c","clientSecret":"x"}`,
	} {
		if _, err := ParseProvider([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// flowsEnv is how many flows are begun.
const flowsEnv = "HUBBUB_TEST_FLOWS"

// TestBegunFlowsCostNothing: nothing is kept of a flow that was begun. A million of
// them are tried with HUBBUB_TEST_FLOWS=1000000.
func TestBegunFlowsCostNothing(t *testing.T) {
	flows := int(ondemand.Number(t, flowsEnv, 20_000))
	var provider *httptest.Server
	provider = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"authorization_endpoint":"https://a.example/a","token_endpoint":"https://a.example/t","jwks_uri":"https://a.example/k"}`, provider.URL)
	}))
	defer provider.Close()
	secrets, err := auth.NewSecrets(auth.NewMaster())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	s, err := New([]Provider{{ID: "a", Name: "A", Issuer: provider.URL, ClientID: "c"}}, "https://chat.example", secrets, clock.NewManual(time.Unix(1_700_000_000, 0)), transport)
	if err != nil {
		t.Fatal(err)
	}
	begin := func(n int) (heap uint64) {
		for range n {
			if _, err := s.Begin(t.Context(), "a", "https://app.example/"+strings.Repeat("x", 1000)); err != nil {
				t.Fatal(err)
			}
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := begin(100)
	after := begin(flows)
	t.Logf("%d flows: the heap went from %d to %d KiB", flows, before>>10, after>>10)
	if after > before+1<<20 {
		t.Errorf("%d flows that were begun hold %d bytes", flows, after-before)
	}
}
