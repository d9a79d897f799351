package sso

import (
	"testing"

	"go.uber.org/goleak"
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
