// Package webpushtest is a push service and a browser for tests: it checks what it is
// sent as the services of browsers do, and decrypts it. It shares no code with what it
// checks. spec: RFC 8030, RFC 8188, RFC 8291, RFC 8292.
package webpushtest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// maxBody is what every service takes. spec: RFC 8030 §7.2.
const maxBody = 4096

// Browser has the keys of a subscription.
type Browser struct {
	key  *ecdh.PrivateKey
	auth []byte
}

// NewBrowser returns a browser with new keys.
func NewBrowser(t testing.TB) *Browser {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	auth := make([]byte, 16)
	_, _ = rand.Read(auth) // never fails
	return &Browser{key, auth}
}

// Keys are what the browser gives to the server: p256dh and auth.
func (b *Browser) Keys() (p256dh, auth string) {
	enc := base64.RawURLEncoding.EncodeToString
	return enc(b.key.PublicKey().Bytes()), enc(b.auth)
}

// Decrypt returns the message of a body.
func (b *Browser) Decrypt(body []byte) ([]byte, error) {
	if len(body) < 21 || len(body) < 21+int(body[20]) {
		return nil, errors.New("a body without a head")
	}
	salt, size, id := body[:16], binary.BigEndian.Uint32(body[16:20]), body[21:21+int(body[20])]
	sealed := body[21+len(id):]
	if size < 18 || len(sealed) > int(size) {
		return nil, fmt.Errorf("%d bytes in a record of %d", len(sealed), size)
	}
	theirs, err := ecdh.P256().NewPublicKey(id)
	if err != nil {
		return nil, err
	}
	shared, err := b.key.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	ikm := expand(mac(b.auth, shared), slices.Concat([]byte("WebPush: info\x00"), b.key.PublicKey().Bytes(), id), 32)
	prk := mac(salt, ikm)
	block, err := aes.NewCipher(expand(prk, []byte("Content-Encoding: aes128gcm\x00"), 16))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, expand(prk, []byte("Content-Encoding: nonce\x00"), 12), sealed, nil)
	if err != nil {
		return nil, err
	}
	text := strings.TrimRight(string(plain), "\x00")
	if !strings.HasSuffix(text, "\x02") {
		return nil, errors.New("a record without an end")
	}
	return []byte(strings.TrimSuffix(text, "\x02")), nil
}

func mac(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write(text) // never fails
	return h.Sum(nil)
}

// expand is the first block of HKDF's second half.
func expand(prk, info []byte, n int) []byte { return mac(prk, append(slices.Clone(info), 1))[:n] }

var vapid = regexp.MustCompile(`^vapid t=([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+), ?k=([A-Za-z0-9_-]+)$`)

// CheckAuthorization checks the proof of who sends: that it is by the key with which the
// browser subscribed, for the service at an origin, and good now.
func CheckAuthorization(header, key, origin string, now time.Time) error {
	m := vapid.FindStringSubmatch(header)
	if m == nil {
		return fmt.Errorf("authorization %q", header)
	}
	if m[4] != key {
		return errors.New("another key than that of the subscription")
	}
	var head struct{ Typ, Alg string }
	var claims struct {
		Aud, Sub string
		Exp      float64
	}
	if err := errors.Join(part(m[1], &head), part(m[2], &claims), checkSignature(m[1]+"."+m[2], m[3], m[4])); err != nil {
		return err
	}
	contact, err := url.Parse(claims.Sub)
	left := time.Unix(int64(claims.Exp), 0).Sub(now)
	switch {
	case head.Alg != "ES256" || head.Typ != "JWT":
		return fmt.Errorf("head %+v", head)
	case claims.Aud != origin:
		return fmt.Errorf("for %q, not %q", claims.Aud, origin)
	case left <= 0 || left > 24*time.Hour:
		return fmt.Errorf("good for %s", left)
	case err != nil || contact.Scheme != "mailto" && contact.Scheme != "https":
		return fmt.Errorf("contact %q", claims.Sub)
	}
	return nil
}

func part(text string, to any) error {
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, to)
}

func checkSignature(text, signature, key string) error {
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || len(sig) != 64 {
		return fmt.Errorf("a signature of %d bytes, %w", len(sig), err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(text))
	if !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return errors.New("the signature is wrong")
	}
	return nil
}

// Message is what came to a browser.
type Message struct {
	// Path is the subscription.
	Path string
	// Payload is what was said, and Raw the JSON of it.
	Payload map[string]any
	Raw     []byte
	TTL     int
	Urgency string
	Topic   string
	// Status is what the service answered.
	Status int
}

// Answer is what the service says instead of 201.
type Answer struct {
	Status int
	Header map[string]string
}

// Service is a push service. Requests that no service would take are errors of the
// test.
type Service struct {
	*httptest.Server
	t   testing.TB
	Got chan Message

	mu      sync.Mutex
	subs    map[string]subscription
	answers []Answer
	always  *Answer
	limit   int
}

type subscription struct {
	browser *Browser
	key     string
}

// New returns a service that runs until the test ends.
func New(t testing.TB) *Service {
	s := &Service{t: t, Got: make(chan Message, 1000), subs: make(map[string]subscription)}
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(s.Close)
	return s
}

// Subscribe makes a subscription for whoever has the key, and returns its address.
func (s *Service) Subscribe(b *Browser, key string) (endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := fmt.Sprintf("/push/%d-%s", len(s.subs)+1, rand.Text())
	s.subs[path] = subscription{b, key}
	return s.URL + path
}

// Unsubscribe ends a subscription: it is gone from now on.
func (s *Service) Unsubscribe(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, strings.TrimPrefix(endpoint, s.URL))
}

// Next makes the service answer otherwise for once.
func (s *Service) Next(a Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, a)
}

// Always makes it answer so until it is told nil.
func (s *Service) Always(a *Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.always = a
}

// Limit makes the service take smaller bodies only.
func (s *Service) Limit(bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = bytes
}

func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Errorf("read push: %v", err)
	}
	s.mu.Lock()
	sub, known := s.subs[r.URL.Path]
	a := Answer{Status: http.StatusCreated}
	switch {
	case !known:
		a.Status = http.StatusGone
	case len(body) > maxBody || s.limit > 0 && len(body) > s.limit:
		a.Status = http.StatusRequestEntityTooLarge
	case s.always != nil:
		a = *s.always
	case len(s.answers) > 0:
		a, s.answers = s.answers[0], s.answers[1:]
	}
	s.mu.Unlock()
	m := Message{Path: r.URL.Path, Status: a.Status}
	if known {
		if err := s.check(&m, sub, r, body); err != nil {
			s.t.Errorf("%s %s: %v", r.Method, r.URL, err)
			a.Status = http.StatusForbidden
		}
	}
	for k, v := range maps.All(a.Header) {
		w.Header().Set(k, v)
	}
	if a.Status == http.StatusCreated {
		w.Header().Set("Location", s.URL+"/message/"+rand.Text())
	}
	w.WriteHeader(a.Status)
	s.Got <- m
}

func (s *Service) check(m *Message, sub subscription, r *http.Request, body []byte) error {
	if r.Method != http.MethodPost || r.Header.Get("Content-Encoding") != "aes128gcm" {
		return fmt.Errorf("%s with Content-Encoding %q", r.Method, r.Header.Get("Content-Encoding"))
	}
	if err := CheckAuthorization(r.Header.Get("Authorization"), sub.key, s.URL, time.Now()); err != nil {
		return err
	}
	var err error
	if m.TTL, err = strconv.Atoi(r.Header.Get("TTL")); err != nil || m.TTL < 0 {
		return fmt.Errorf("lives %q", r.Header.Get("TTL"))
	}
	m.Urgency, m.Topic = r.Header.Get("Urgency"), r.Header.Get("Topic")
	if !slices.Contains([]string{"", "very-low", "low", "normal", "high"}, m.Urgency) {
		return fmt.Errorf("urgency %q", m.Urgency)
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{0,32}$`).MatchString(m.Topic) {
		return fmt.Errorf("topic %q", m.Topic)
	}
	if m.Raw, err = sub.browser.Decrypt(body); err != nil {
		return err
	}
	return json.Unmarshal(m.Raw, &m.Payload)
}
