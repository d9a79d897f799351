// Package mailer sends mail through an SMTP server.
//
// Mail is queued and sent beside the request that caused it, so that the time of
// an answer does not tell whether there was anything to send. The queue is
// bounded and in memory: what it loses in a crash the user asks for again.
//
// Invariants: an address or a subject with a control character never reaches the
// server, so nobody can add headers or recipients; a password is sent only over a
// connection that is encrypted or stays on the machine.
//
// Send may be called from any goroutine. Close waits for what is queued, as long as
// its context lasts.
package mailer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/mail"
	"strconv"
	"sync"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/hubbub-chat/hubbub/internal/auth"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// Security says how the connection is protected.
type Security string

// The kinds of protection.
const (
	// StartTLS demands that the server offers it.
	StartTLS Security = "starttls"
	// Implicit TLS begins with the connection.
	Implicit Security = "implicit"
	// None sends in clear: for a relay on the same machine.
	None Security = "none"
)

const (
	// queueLength is how many mails wait. At one a second, which a slow relay takes,
	// the last one waits four minutes.
	queueLength = 256
	// senders is how many connections there are: providers limit them per customer.
	senders = 2
	// sendTimeout bounds one attempt, greylisting and TLS included.
	sendTimeout = 30 * time.Second
	// attempts is how often a mail is tried; attemptPause grows with each.
	attempts     = 3
	attemptPause = 2 * time.Second
	// fullRetry is what callers are told who find the queue full.
	fullRetry = 30 * time.Second
)

// Options say where mail goes.
type Options struct {
	// Addr is host:port of the SMTP server.
	Addr string
	// From is the sender, as of RFC 5322: "Chat <chat@example.org>".
	From string
	// User and Password log in, "" for no login.
	User, Password string
	Security       Security
	Log            *slog.Logger
	// TLS replaces the system's idea of whom to trust, nil leaves it.
	TLS *tls.Config
}

// Mail is a mail in two forms.
type Mail struct {
	// To is one address, in canonical form.
	To      string
	Subject string
	Text    string
	HTML    string
}

// Mailer sends mail.
type Mailer struct {
	opts   Options
	from   *mail.Address
	client []gomail.Option
	host   string
	pause  time.Duration // attemptPause, but in tests
	queue  chan Mail
	wg     sync.WaitGroup
	ctx    context.Context
	cancel context.CancelFunc

	mu struct {
		sync.RWMutex
		closed bool
	}
}

// New returns a mailer and starts its senders.
func New(o Options) (*Mailer, error) {
	m := &Mailer{opts: o, pause: attemptPause, queue: make(chan Mail, queueLength)}
	var err error
	if m.from, err = mail.ParseAddress(o.From); err != nil {
		return nil, fmt.Errorf("mail: sender %q: %w", o.From, err)
	}
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("mail: server %q: %w", o.Addr, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("mail: server %q: %w", o.Addr, err)
	}
	m.host = host
	m.client = []gomail.Option{gomail.WithPort(int(n)), gomail.WithTimeout(sendTimeout), gomail.WithoutNoop()}
	switch o.Security {
	case Implicit:
		m.client = append(m.client, gomail.WithSSL())
	case StartTLS:
		m.client = append(m.client, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case None:
		m.client = append(m.client, gomail.WithTLSPolicy(gomail.NoTLS))
	default:
		return nil, fmt.Errorf("mail: unknown security %q", o.Security)
	}
	if o.TLS != nil {
		m.client = append(m.client, gomail.WithTLSConfig(o.TLS))
	}
	if o.User != "" {
		how := gomail.SMTPAuthAutoDiscover
		if o.Security == None {
			how = gomail.SMTPAuthPlainNoEnc // the configuration allows it on this machine alone
		}
		m.client = append(m.client, gomail.WithSMTPAuth(how),
			gomail.WithUsername(o.User), gomail.WithPassword(o.Password))
	}
	if _, err := gomail.NewClient(m.host, m.client...); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for range senders {
		m.wg.Go(m.run)
	}
	return m, nil
}

// ErrAddress says that a mail cannot be addressed so.
var ErrAddress = errors.New("mail: impossible address or subject")

// Send queues a mail. 503 if too many wait.
func (m *Mailer) Send(one Mail) error {
	if to, err := auth.CanonicalEmail(one.To); err != nil || to != one.To || !plain(one.Subject) {
		return ErrAddress
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.mu.closed {
		return merr.UnavailableErr(fullRetry, "The server is going away")
	}
	select {
	case m.queue <- one:
		return nil
	default:
		return merr.UnavailableErr(fullRetry, "Too many mails are waiting to be sent")
	}
}

// plain reports whether a header's value has no control characters.
func plain(s string) bool {
	for _, c := range s {
		if c < 0x20 || c == 0x7f {
			return false
		}
	}
	return true
}

func (m *Mailer) run() {
	for one := range m.queue {
		if err := m.deliver(one); err != nil {
			// The address is personal, and the log is read by many.
			m.opts.Log.Warn("a mail could not be sent", "subject", one.Subject, "error", err)
		}
	}
}

func (m *Mailer) deliver(one Mail) (err error) {
	for attempt := range attempts {
		if attempt > 0 {
			select {
			case <-m.ctx.Done():
				return err
			case <-time.After(time.Duration(attempt) * m.pause):
			}
		}
		if err = m.try(one); err == nil || m.ctx.Err() != nil || permanent(err) {
			return err
		}
	}
	return err
}

// permanent reports whether the server will say the same again: RFC 5321 §4.2.1.
func permanent(err error) bool {
	var e *gomail.SendError
	return errors.As(err, &e) && !e.IsTemp()
}

func (m *Mailer) try(one Mail) error {
	ctx, cancel := context.WithTimeout(m.ctx, sendTimeout)
	defer cancel()
	client, err := gomail.NewClient(m.host, m.client...)
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	msg := gomail.NewMsg()
	msg.FromMailAddress(m.from)
	msg.ToMailAddress(&mail.Address{Address: one.To})
	msg.Subject(one.Subject)
	msg.SetDate()
	msg.SetMessageID()
	// Vacation notices and bounces are not for us. RFC 3834 §5.
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(gomail.TypeTextPlain, one.Text)
	msg.AddAlternativeString(gomail.TypeTextHTML, one.HTML)
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	return nil
}

// Close sends what is queued, as long as the context lasts.
func (m *Mailer) Close(ctx context.Context) {
	m.mu.Lock()
	if !m.mu.closed {
		m.mu.closed = true
		close(m.queue)
	}
	m.mu.Unlock()
	stop := context.AfterFunc(ctx, m.cancel)
	defer stop()
	m.wg.Wait()
	m.cancel()
}
