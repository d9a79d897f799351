package security

import (
	"errors"
	"io"
	"mime/quotedprintable"
	"regexp"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/hubbub-chat/hubbub/internal/mailer/mailtest"
)

// mailbox is a real SMTP server that takes one password and keeps the secrets of the
// links that it is sent.
type mailbox struct {
	addr    string
	secrets chan string
}

var secretInLink = regexp.MustCompile(`[?&](?:amp;)?token=([\w.~-]+)`)

func (b *mailbox) Mail(string, *smtp.MailOptions) error { return nil }
func (b *mailbox) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (b *mailbox) Reset()                               {}
func (b *mailbox) Logout() error                        { return nil }
func (b *mailbox) AuthMechanisms() []string             { return []string{sasl.Plain} }

func (b *mailbox) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, _, password string) error {
		if password != canaryMail {
			return errors.New("wrong password")
		}
		return nil
	}), nil
}

func (b *mailbox) Data(r io.Reader) error {
	raw, err := io.ReadAll(quotedprintable.NewReader(r))
	if m := secretInLink.FindSubmatch(raw); m != nil {
		select {
		case b.secrets <- string(m[1]):
		default: // enough of them
		}
	}
	return err
}

func newMailbox(t *testing.T) *mailbox {
	t.Helper()
	box := &mailbox{secrets: make(chan string, 10)}
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return box, nil }))
	srv.AllowInsecureAuth = true
	box.addr = mailtest.Serve(t, srv, nil)
	return box
}
