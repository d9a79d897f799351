package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// answerPatience bounds the wait for one answer, long polls included.
const answerPatience = 60 * time.Second

// maxAnswer bounds the body of one answer: an initial sync is tens of megabytes.
const maxAnswer = 256 << 20

var errAnswer = errors.New("not an answer of HTTP/1.1")

// httpConn is one connection for requests one after another. It does what
// net/http does for a known server at a fifth of the cost: the load generator
// shares the machine with what it measures.
//
// It dials when it is needed and again after an error. It is used by one
// goroutine.
type httpConn struct {
	base  *url.URL
	conn  net.Conn
	in    *bufio.Reader
	out   []byte
	body  []byte
	token string
	// via dials, nil for the usual way.
	via func(ctx context.Context, network, addr string) (net.Conn, error)
}

func newHTTPConn(base, token string) (*httpConn, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("server address: %w", err)
	}
	return &httpConn{base: u, token: token}, nil
}

func (c *httpConn) dial(ctx context.Context) error {
	addr := c.base.Host
	if c.base.Port() == "" {
		port := "80"
		if c.base.Scheme == "https" {
			port = "443"
		}
		addr = net.JoinHostPort(c.base.Hostname(), port)
	}
	dial := c.via
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if c.base.Scheme == "https" {
		dial = new(tls.Dialer).DialContext
	}
	var err error
	c.conn, err = dial(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	if c.in == nil {
		c.in = bufio.NewReaderSize(c.conn, 4<<10)
	}
	c.in.Reset(c.conn)
	return nil
}

// do makes a request and returns the answer, whose body is valid until the next
// one. A canceled context cuts the connection.
func (c *httpConn) do(ctx context.Context, method, target string, body []byte) (status int, answer []byte, err error) {
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return 0, nil, err
		}
	}
	conn := c.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() || err != nil {
			c.close()
		}
	}()
	var closing bool
	status, answer, closing, err = c.exchange(method, target, body)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 0, nil, fmt.Errorf("%s: %w", method, err)
	}
	if closing {
		c.close()
	}
	return status, answer, nil
}

// exchange writes the request and reads the answer.
func (c *httpConn) exchange(method, target string, body []byte) (status int, answer []byte, closing bool, err error) {
	if err := c.conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return 0, nil, false, err
	}
	b := append(append(append(append(c.out[:0], method...), ' '), target...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, c.base.Host...), "\r\n"...)
	if c.token != "" {
		b = append(append(append(b, "Authorization: Bearer "...), c.token...), "\r\n"...)
	}
	if body != nil {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n"...)
	}
	b = append(append(b, "\r\n"...), body...)
	c.out = b
	if _, err := c.conn.Write(b); err != nil {
		return 0, nil, false, err
	}
	h, err := c.readHead()
	if err != nil {
		return 0, nil, false, err
	}
	c.body = c.body[:0]
	if h.length < 0 {
		c.body, err = io.ReadAll(io.LimitReader(httputil.NewChunkedReader(c.in), maxAnswer))
		if err == nil {
			_, err = c.in.ReadSlice('\n') // the empty line behind the last chunk
		}
		return h.status, c.body, h.closing, err
	}
	c.body = slices.Grow(c.body, int(h.length))[:h.length]
	_, err = io.ReadFull(c.in, c.body)
	return h.status, c.body, h.closing, err
}

// head is the status line and what of the headers matters.
type head struct {
	status  int
	length  int64 // -1: chunked
	closing bool
}

func (c *httpConn) readHead() (head, error) {
	h := head{length: 0}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	if len(line) < len("HTTP/1.1 200") || string(line[:7]) != "HTTP/1." {
		return h, errAnswer
	}
	if h.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return h, errAnswer
	}
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return h, err
		}
		if len(line) <= 2 {
			return h, nil
		}
		// Names that begin with another letter need no look.
		switch line[0] | 0x20 {
		case 'c', 't':
		default:
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Content-Length"):
			if h.length, err = strconv.ParseInt(value, 10, 64); err != nil || h.length < 0 || h.length > maxAnswer {
				return h, errAnswer
			}
		case strings.EqualFold(name, "Transfer-Encoding") && strings.EqualFold(value, "chunked"):
			h.length = -1
		case strings.EqualFold(name, "Connection") && strings.EqualFold(value, "close"):
			h.closing = true
		}
	}
}

// close drops the connection.
func (c *httpConn) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// statusText names a status for the count of errors.
func statusText(status int, body []byte) string {
	code, _ := valueOf(body, `"errcode":"`)
	if len(code) == 0 {
		return strconv.Itoa(status) + " " + http.StatusText(status)
	}
	return strconv.Itoa(status) + " " + string(code)
}
