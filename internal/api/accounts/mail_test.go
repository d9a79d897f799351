package accounts_test

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/mailer/mailtest"
)

// mailbox is a real SMTP server that keeps what it is sent.
type mailbox struct {
	addr string
	got  chan letter
}

type letter struct{ to, subject, text, html string }

type delivery struct {
	box *mailbox
	to  string
}

func (d *delivery) Mail(string, *smtp.MailOptions) error      { return nil }
func (d *delivery) Rcpt(to string, _ *smtp.RcptOptions) error { d.to = to; return nil }
func (d *delivery) Reset()                                    {}
func (d *delivery) Logout() error                             { return nil }
func (d *delivery) Data(r io.Reader) error {
	msg, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	one := letter{to: d.to, subject: msg.Header.Get("Subject")}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		return err
	}
	rd := multipart.NewReader(msg.Body, params["boundary"])
	for {
		p, err := rd.NextRawPart()
		if errors.Is(err, io.EOF) {
			d.box.got <- one
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(quotedprintable.NewReader(p))
		if err != nil {
			return err
		}
		if strings.HasPrefix(p.Header.Get("Content-Type"), "text/html") {
			one.html = string(b)
		} else {
			one.text = string(b)
		}
	}
}

func newMailbox(t *testing.T) *mailbox {
	t.Helper()
	box := &mailbox{got: make(chan letter, 50)}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &delivery{box: box}, nil }))
	box.addr = mailtest.Serve(t, srv, nil)
	return box
}

// withMail starts a server that sends mail to a mailbox.
func withMail(t *testing.T, changes ...func(*config.Config)) (*apptest.Server, *mailbox) {
	t.Helper()
	box := newMailbox(t)
	changes = append(changes, func(c *config.Config) {
		c.SMTP.Addr, c.SMTP.From, c.SMTP.Security = box.addr, "Chat <chat@example.org>", config.SMTPNone
		c.SMTP.NextLinks = []string{"https://app.example/room"}
	})
	return apptest.Start(t, changes...), box
}

func (b *mailbox) next(t *testing.T) letter {
	t.Helper()
	select {
	case one := <-b.got:
		return one
	case <-time.After(patience):
		t.Fatal("no mail came")
		return letter{}
	}
}

var linkPattern = regexp.MustCompile(`http://\S+`)

// link returns the path and the parameters of the link in a mail.
func (l letter) link(t *testing.T, s *apptest.Server) (target string, q url.Values) {
	t.Helper()
	found := linkPattern.FindString(l.text)
	target, ok := strings.CutPrefix(found, s.URL)
	u, err := url.Parse(found)
	if !ok || err != nil {
		t.Fatalf("no link of this server in %q", l.text)
	}
	return target, u.Query()
}

// ask has a mail sent, and returns the session ID.
func ask(t *testing.T, c *apptest.Client, path, secret, email string, attempt int) string {
	t.Helper()
	out := c.Must(t, "POST", v3+path+"/email/requestToken", object{"client_secret": secret, "email": email, "send_attempt": attempt})
	sid, _ := out["sid"].(string)
	if sid == "" {
		t.Fatalf("answer %v", out)
	}
	return sid
}

// press opens a link and presses the button, as a browser does.
func press(t *testing.T, c *apptest.Client, q url.Values) (int, string) {
	t.Helper()
	resp, err := c.HTTP.PostForm(c.Server.URL+"/_hubbub/v1/email/validate", q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// prove proves an address, and returns the session ID.
func prove(t *testing.T, c *apptest.Client, box *mailbox, path, secret, email string) string {
	t.Helper()
	sid := ask(t, c, path, secret, email, 1)
	_, q := box.next(t).link(t, c.Server)
	if status, body := press(t, c, q); status != 200 {
		t.Fatalf("confirm: %d %s", status, body)
	}
	return sid
}

func emailAuth(sid, secret string) object {
	return object{"type": "m.login.email.identity", "threepid_creds": object{"sid": sid, "client_secret": secret}}
}
