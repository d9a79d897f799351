package sso_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// issuer is an OpenID provider that holds to the rules: exact redirect URIs, PKCE
// with S256 only, codes that work once and for whom they were made.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu struct {
		sync.Mutex
		codes map[string]grant
		// person is who signs in next; spoil changes the statement about them.
		person   map[string]any
		spoil    func(*statement)
		redirect string // the registered redirect URI
	}
}

type grant struct {
	redirect, nonce, challenge string
	person                     map[string]any
}

// statement is an ID token before it is signed.
type statement struct {
	claims map[string]any
	alg    jose.SignatureAlgorithm
	key    any
	none   bool
}

const (
	clientID     = "hubbub"
	clientSecret = "s3cret"
)

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &issuer{key: key}
	p.mu.codes = make(map[string]grant)
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{
			"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"}, "code_challenge_methods_supported": []string{"S256"},
		})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("/authorize", p.authorize)
	mux.HandleFunc("/token", p.token)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// authorize signs the person in without asking and sends the browser back.
func (p *issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	if q.Get("client_id") != clientID || q.Get("redirect_uri") != p.mu.redirect || q.Get("response_type") != "code" ||
		q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") == "" || q.Get("nonce") == "" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	p.mu.codes[code] = grant{q.Get("redirect_uri"), q.Get("nonce"), q.Get("code_challenge"), p.mu.person}
	back := url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {p.URL}}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
}

func (p *issuer) token(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	if id == "" {
		id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	code := r.FormValue("code")
	g, ok := p.mu.codes[code]
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if id != clientID || secret != clientSecret || !ok || r.FormValue("redirect_uri") != g.redirect ||
		base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge {
		w.WriteHeader(http.StatusBadRequest)
		reply(w, map[string]string{"error": "invalid_grant"})
		return
	}
	delete(p.mu.codes, code)
	now := time.Now().Unix()
	st := &statement{alg: jose.RS256, key: p.key, claims: map[string]any{
		"iss": p.URL, "aud": clientID, "iat": now, "exp": now + 60, "nonce": g.nonce,
	}}
	for k, v := range g.person {
		st.claims[k] = v
	}
	if p.mu.spoil != nil {
		p.mu.spoil(st)
	}
	reply(w, map[string]any{"access_token": "x", "token_type": "Bearer", "expires_in": 60, "id_token": st.sign()})
}

func (st *statement) sign() string {
	if st.none {
		body, _ := json.Marshal(st.claims)
		return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(body) + "."
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: st.alg, Key: st.key}, (&jose.SignerOptions{}).WithHeader("kid", "k"))
	if err != nil {
		panic(err)
	}
	token, err := jwt.Signed(s).Claims(st.claims).Serialize()
	if err != nil {
		panic(err)
	}
	return token
}

// publicKey is the key as a secret, for those who would mix them up.
func (p *issuer) publicKey() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&p.key.PublicKey)})
}

func (p *issuer) person(claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.person = claims
}

func (p *issuer) spoiled(fn func(*statement)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.spoil = fn
}

// file is the configuration of the provider.
func (p *issuer) file(t *testing.T, id string, more map[string]any) string {
	t.Helper()
	conf := map[string]any{"id": id, "name": "Work <&>", "issuer": p.URL, "client_id": clientID, "client_secret": clientSecret, "brand": "work"}
	for k, v := range more {
		conf[k] = v
	}
	b, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), id+".json")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// serve says where the server is that the provider knows.
func (p *issuer) serve(s *apptest.Server, id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.redirect = s.URL + "/_hubbub/v1/sso/callback/" + id
}
