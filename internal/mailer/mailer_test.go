package mailer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/hubbub-chat/hubbub/internal/mailer/mailtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// relay is a real SMTP server that keeps what it is sent.
type relay struct {
	addr  string
	got   chan received
	roots *x509.CertPool

	mu struct {
		sync.Mutex
		refuse []error // what the next mails are answered
		seen   int
	}
}

type received struct {
	from  string
	to    []string
	user  string
	isTLS bool
	data  string
}

type session struct {
	r    *relay
	conn *smtp.Conn
	one  received
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != "mailer" || password != "secret" {
			return errors.New("no")
		}
		s.one.user = user
		return nil
	}), nil
}
func (s *session) Mail(from string, _ *smtp.MailOptions) error { s.one.from = from; return nil }
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.one.to = append(s.one.to, to)
	return nil
}

func (s *session) Data(rd io.Reader) error {
	b, err := io.ReadAll(rd)
	if err != nil {
		return err
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.r.mu.seen++
	if len(s.r.mu.refuse) > 0 {
		err, s.r.mu.refuse = s.r.mu.refuse[0], s.r.mu.refuse[1:]
		return err
	}
	_, s.one.isTLS = s.conn.TLSConnectionState()
	s.one.data = string(b)
	s.r.got <- s.one
	return nil
}
func (s *session) Reset()        { s.one.to = nil }
func (s *session) Logout() error { return nil }

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func newRelay(t *testing.T, how Security) *relay {
	t.Helper()
	r := &relay{got: make(chan received, 10)}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{r: r, conn: c}, nil }))
	var cert tls.Certificate
	cert, r.roots = certificate(t)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	var implicit *tls.Config
	switch how {
	case Implicit:
		implicit = conf
	case StartTLS:
		srv.TLSConfig = conf
	case None:
		srv.AllowInsecureAuth = true
	}
	r.addr = mailtest.Serve(t, srv, implicit)
	return r
}

func (r *relay) mailer(t *testing.T, how Security, change func(*Options)) *Mailer {
	t.Helper()
	o := Options{
		Addr: r.addr, From: "Chät <chat@example.org>", Security: how, User: "mailer", Password: "secret",
		Log: slog.New(slog.DiscardHandler), TLS: &tls.Config{RootCAs: r.roots, ServerName: "127.0.0.1"},
	}
	if change != nil {
		change(&o)
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	m.pause = time.Millisecond
	return m
}

func (r *relay) next(t *testing.T) received {
	t.Helper()
	select {
	case one := <-r.got:
		return one
	case <-time.After(patience):
		t.Fatal("no mail came")
		return received{}
	}
}

func hello(to string) Mail {
	return Mail{To: to, Subject: "Grüße", Text: "Dear you,\nhere: https://a.example/?x=1&y=2\n", HTML: "<p>Dear you</p>"}
}

// parts returns the bodies of a multipart/alternative mail by content type.
func parts(t *testing.T, m *mail.Message) map[string]string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("content type %q: %v", kind, err)
	}
	out := make(map[string]string)
	rd := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := rd.NextRawPart()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		var body io.Reader = p
		if p.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
			body = quotedprintable.NewReader(p)
		}
		b, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		out[kind] = strings.ReplaceAll(string(b), "\r\n", "\n")
	}
}

func TestMailArrives(t *testing.T) {
	for _, how := range []Security{StartTLS, Implicit, None} {
		t.Run(string(how), func(t *testing.T) {
			r := newRelay(t, how)
			m := r.mailer(t, how, nil)
			defer m.Close(t.Context())
			if err := m.Send(hello("bob@example.org")); err != nil {
				t.Fatal(err)
			}
			got := r.next(t)
			if got.from != "chat@example.org" || len(got.to) != 1 || got.to[0] != "bob@example.org" || got.user != "mailer" {
				t.Errorf("envelope %+v", got)
			}
			if got.isTLS != (how == StartTLS) && how != Implicit {
				t.Errorf("TLS: %v", got.isTLS)
			}
			msg, err := mail.ReadMessage(strings.NewReader(got.data))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
			if err != nil || subject != "Grüße" {
				t.Errorf("subject %q %v", subject, err)
			}
			for _, name := range []string{"From", "To", "Date", "Message-Id", "Auto-Submitted"} {
				if len(msg.Header[name]) != 1 {
					t.Errorf("%s: %v", name, msg.Header[name])
				}
			}
			body := parts(t, msg)
			if want := hello("").Text; strings.TrimSpace(body["text/plain"]) != strings.TrimSpace(want) {
				t.Errorf("text %q", body["text/plain"])
			}
			if strings.TrimSpace(body["text/html"]) != "<p>Dear you</p>" {
				t.Errorf("HTML %q", body["text/html"])
			}
		})
	}
}

// A server that offers no TLS is told nothing, least of all the password.
func TestTLSIsDemanded(t *testing.T) {
	r := newRelay(t, None)
	m := r.mailer(t, StartTLS, nil)
	if err := m.try(hello("bob@example.org")); err == nil {
		t.Error("mail was sent without TLS")
	}
	m.Close(t.Context())
	r = newRelay(t, StartTLS)
	m = r.mailer(t, StartTLS, func(o *Options) { o.TLS = nil })
	if err := m.try(hello("bob@example.org")); err == nil {
		t.Error("an unknown certificate was trusted")
	}
	m.Close(t.Context())
	if len(r.got) > 0 {
		t.Error("a mail came")
	}
}

func TestInjection(t *testing.T) {
	r := newRelay(t, None)
	m := r.mailer(t, None, nil)
	defer m.Close(t.Context())
	for _, to := range []string{
		"", "bob", "bob@example.org\r\nBcc: eve@example.org", "bob@example.org,eve@example.org", "<bob@example.org>",
		"bob@example.org eve@example.org", "\"a\r\nRCPT TO:<eve@x.example>\"@example.org", "Bob@example.org", "bob@example.org\x00",
	} {
		if err := m.Send(hello(to)); !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", to, err)
		}
	}
	for _, subject := range []string{"x\r\nBcc: eve@example.org", "x\ny", "x\x00"} {
		one := hello("bob@example.org")
		one.Subject = subject
		if err := m.Send(one); !errors.Is(err, ErrAddress) {
			t.Errorf("subject %q: %v", subject, err)
		}
	}
}

func TestRetries(t *testing.T) {
	r := newRelay(t, None)
	r.mu.refuse = []error{&smtp.SMTPError{Code: 451, Message: "later"}, &smtp.SMTPError{Code: 550, Message: "never"}}
	m := r.mailer(t, None, nil)
	if err := m.deliver(hello("bob@example.org")); err == nil {
		t.Error("a mail that was refused counts as sent")
	}
	if r.mu.seen != 2 {
		t.Errorf("%d attempts, want one after the temporary refusal and none after the other", r.mu.seen)
	}
	if err := m.deliver(hello("bob@example.org")); err != nil {
		t.Error(err)
	}
	m.Close(t.Context())
}

// Close sends what waits; then nothing is taken any more.
func TestClose(t *testing.T) {
	r := newRelay(t, None)
	m := r.mailer(t, None, nil)
	for range 5 {
		if err := m.Send(hello("bob@example.org")); err != nil {
			t.Fatal(err)
		}
	}
	m.Close(context.Background())
	if len(r.got) != 5 {
		t.Errorf("%d mails came", len(r.got))
	}
	if err := m.Send(hello("bob@example.org")); err == nil {
		t.Error("a mail was taken that nobody will send")
	}
}

func TestQueueIsBounded(t *testing.T) {
	m := &Mailer{queue: make(chan Mail, 2)}
	for range 2 {
		if err := m.Send(hello("bob@example.org")); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Send(hello("bob@example.org")); err == nil {
		t.Error("the queue takes more than fits")
	}
}

func TestOptions(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"sender":   func(o *Options) { o.From = "nobody" },
		"server":   func(o *Options) { o.Addr = "mail.example.org" },
		"port":     func(o *Options) { o.Addr = "mail.example.org:smtp" },
		"security": func(o *Options) { o.Security = "maybe" },
	} {
		o := Options{Addr: "127.0.0.1:25", From: "a@b.example", Security: None, Log: slog.New(slog.DiscardHandler)}
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("a wrong %s is taken", name)
		}
	}
}
