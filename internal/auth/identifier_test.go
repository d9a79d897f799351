package auth

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/merr"
)

func TestParseIdentifier(t *testing.T) {
	alice := Identifier{User: "@alice:example.org"}
	mail := Identifier{Email: "a@b.example"}
	for _, tt := range []struct {
		body   string
		want   Identifier
		code   merr.Code
		status int
	}{
		{`{"identifier":{"type":"m.id.user","user":"alice"}}`, alice, "", 0},
		{`{"identifier":{"type":"m.id.user","user":"@alice:example.org"}}`, alice, "", 0},
		{`{"identifier":{"type":"m.id.user","user":"Alice"}}`, alice, "", 0},
		{`{"identifier":{"type":"m.id.user","user":"@ALICE:example.org"}}`, alice, "", 0},
		{`{"user":"alice"}`, alice, "", 0},
		{`{"user":"bob","identifier":{"type":"m.id.user","user":"alice"}}`, alice, "", 0},
		{`{"identifier":{"type":"m.id.thirdparty","medium":"email","address":"A@b.Example"}}`, mail, "", 0},
		{`{"medium":"email","address":"a@b.example"}`, mail, "", 0},
		{`{}`, Identifier{}, merr.MissingParam, 400},
		{`{"identifier":null}`, Identifier{}, merr.MissingParam, 400},
		{`{"identifier":{}}`, Identifier{}, merr.MissingParam, 400},
		{`{"identifier":"alice"}`, Identifier{}, merr.BadJSON, 400},
		{`{"user":5}`, Identifier{}, merr.BadJSON, 400},
		{`{`, Identifier{}, merr.BadJSON, 400},
		{`{"identifier":{"type":"m.id.user"}}`, Identifier{}, merr.MissingParam, 400},
		{`{"identifier":{"type":"m.id.user","user":{}}}`, Identifier{}, merr.BadJSON, 400},
		{`{"identifier":{"type":"m.id.user","user":"@alice:evil.example"}}`, Identifier{}, merr.Forbidden, 403},
		{`{"identifier":{"type":"m.id.user","user":"@alice:example.org:8448"}}`, Identifier{}, merr.Forbidden, 403},
		{`{"identifier":{"type":"m.id.user","user":"alice:example.org"}}`, Identifier{}, merr.Forbidden, 403},
		{`{"identifier":{"type":"m.id.user","user":""}}`, Identifier{}, merr.Forbidden, 403},
		{`{"identifier":{"type":"m.id.user","user":"al ice"}}`, Identifier{}, merr.Forbidden, 403},
		{`{"identifier":{"type":"m.id.user","user":"` + strings.Repeat("a", 300) + `"}}`, Identifier{}, merr.Forbidden, 403},
		{`{"identifier":{"type":"m.id.user","user":"@alice"}}`, Identifier{}, merr.InvalidParam, 400},
		{`{"identifier":{"type":"m.id.thirdparty","medium":"email"}}`, Identifier{}, merr.MissingParam, 400},
		{`{"medium":"email"}`, Identifier{}, merr.MissingParam, 400},
		{`{"medium":"email","address":"nobody"}`, Identifier{}, merr.InvalidParam, 400},
		{`{"medium":"msisdn","address":"4912345"}`, Identifier{}, merr.Unrecognized, 400},
		{`{"identifier":{"type":"m.id.phone","country":"DE","phone":"12345"}}`, Identifier{}, merr.Unrecognized, 400},
		{`{"identifier":{"type":"m.id.new"}}`, Identifier{}, merr.Unrecognized, 400},
	} {
		got, err := ParseIdentifier(jsontext.Value(tt.body), "example.org")
		if tt.code == "" {
			if err != nil || got != tt.want {
				t.Errorf("%s: got %+v %v", tt.body, got, err)
			}
			continue
		}
		if e := merr.From(err); err == nil || e.Code != tt.code || e.Status != tt.status {
			t.Errorf("%.80s: got %v, want %d %s", tt.body, err, tt.status, tt.code)
		}
	}
}

func FuzzParseIdentifier(f *testing.F) {
	f.Add(`{"identifier":{"type":"m.id.user","user":"@alice:example.org"}}`)
	f.Add(`{"medium":"email","address":"a@b.example"}`)
	f.Fuzz(func(t *testing.T, body string) {
		id, err := ParseIdentifier(jsontext.Value(body), "example.org")
		if err != nil {
			if merr.From(err).Status >= 500 {
				t.Fatal(err)
			}
			return
		}
		if (id.User == "") == (id.Email == "") || id.User != "" && id.User.Server() != "example.org" {
			t.Fatalf("%s: got %+v", body, id)
		}
	})
}
