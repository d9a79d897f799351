package appservice

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

const (
	// connectTimeout bounds reaching a service: it is on this machine or near.
	connectTimeout = 5 * time.Second
	// pingTimeout bounds a ping.
	pingTimeout = 10 * time.Second
	// queryTimeout bounds one question, which somebody waits for.
	queryTimeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 4 << 20
	// maxPingBody bounds what a failed ping shows of an answer, in bytes.
	maxPingBody = 4 << 10
	// idlePerService is how many connections to one service stay open.
	idlePerService = 8
)

// Client asks services.
type Client struct {
	services *Registry
	clock    clock.Clock
	http     *http.Client

	mu struct {
		sync.Mutex
		protocols map[string]*knownProtocol // by protocol
	}
}

// NewClient returns a client for the services of a registry.
func NewClient(r *Registry, c clock.Clock) *Client {
	t := &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: connectTimeout}).DialContext, TLSHandshakeTimeout: connectTimeout,
		MaxIdleConnsPerHost: idlePerService, IdleConnTimeout: time.Minute,
	}
	cl := &Client{services: r, clock: c, http: &http.Client{
		Transport: t,
		// A token must not follow a redirect to somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	cl.mu.protocols = make(map[string]*knownProtocol)
	return cl
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// reply is what a service answered.
type reply struct {
	status int
	body   []byte
}

func (r reply) ok() bool { return r.status >= 200 && r.status < 300 }

// unknownRoute reports whether a service does not know the path, rather than what
// it was asked about.
func (r reply) unknownRoute() bool {
	switch r.status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
	default:
		return false
	}
	var e struct {
		Code merr.Code `json:"errcode"`
	}
	return json.Unmarshal(r.body, &e) != nil || e.Code == "" || e.Code == merr.Unrecognized
}

// do makes a request, and again with the path that older services know if the
// service does not know the first. spec: application-service §Legacy routes.
func (c *Client) do(ctx context.Context, s *Service, method, path, legacy string, body []byte) (reply, error) {
	r, err := c.once(ctx, s, method, path, body)
	if err != nil || legacy == "" || !r.unknownRoute() {
		return r, err
	}
	return c.once(ctx, s, method, legacy, body)
}

func (c *Client) once(ctx context.Context, s *Service, method, path string, body []byte) (reply, error) {
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, rd)
	if err != nil {
		return reply{}, fmt.Errorf("ask application service: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+s.hsToken)
	req.Header.Set("User-Agent", "hubbub")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{}, fmt.Errorf("ask application service: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return reply{}, fmt.Errorf("ask application service: %w", err)
	}
	return reply{resp.StatusCode, b}, nil
}

// The error codes of a ping. spec: client-server
// §POST /appservice/{appserviceId}/ping.
const (
	codeURLNotSet         merr.Code = "M_URL_NOT_SET"
	codeConnectionFailed  merr.Code = "M_CONNECTION_FAILED"
	codeConnectionTimeout merr.Code = "M_CONNECTION_TIMEOUT"
	codeBadStatus         merr.Code = "M_BAD_STATUS"
)

// Ping asks a service whether it is there, and returns how long that took. Its
// errors are those of the ping endpoint.
func (c *Client) Ping(ctx context.Context, s *Service, txn string) (time.Duration, error) {
	if s.URL == "" {
		return 0, merr.New(http.StatusBadRequest, codeURLNotSet, "The registration of the application service has no URL")
	}
	body := jsontext.Value("{}")
	if txn != "" {
		var err error
		if body, err = json.Marshal(map[string]string{"transaction_id": txn}); err != nil {
			return 0, merr.BadJSONErr("transaction_id is not valid text").Because(err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	start := c.clock.Now()
	r, err := c.once(ctx, s, http.MethodPost, "/_matrix/app/v1/ping", body)
	switch {
	case timedOut(err):
		return 0, merr.New(http.StatusGatewayTimeout, codeConnectionTimeout, "The application service did not answer in time")
	case err != nil:
		return 0, merr.New(http.StatusBadGateway, codeConnectionFailed, "The application service cannot be reached: %v", err)
	case !r.ok():
		return 0, merr.New(http.StatusBadGateway, codeBadStatus, "The application service answered with status %d", r.status).
			With("status", r.status).With("body", string(bytes.ToValidUTF8(r.body[:min(len(r.body), maxPingBody)], nil)))
	}
	return c.clock.Now().Sub(start), nil
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// segment escapes what stands in a path.
func segment(s string) string { return url.PathEscape(s) }
