package wsclient

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
)

type reqMessage struct {
	Op     string         `json:"op"`
	ID     uint64         `json:"id"`
	Method string         `json:"method"`
	Path   string         `json:"path"`
	Body   jsontext.Value `json:"body,omitempty"`
}

// Call runs a call. target is the escaped path with the query; body is JSON, nil
// for none. The error is about the transport: an answer with any status is a
// Result. When ctx ends, the call is cancelled on the server too.
func (c *Client) Call(ctx context.Context, method, target string, body []byte) (Result, error) {
	ch := make(chan Result, 1)
	c.mu.Lock()
	l := c.mu.link
	if l == nil {
		c.mu.Unlock()
		return Result{}, ErrDisconnected
	}
	id := c.mu.nextID
	c.mu.nextID++
	if c.mu.pending == nil {
		c.mu.pending = make(map[uint64]chan Result)
	}
	c.mu.pending[id] = ch
	c.mu.Unlock()
	m, err := json.Marshal(reqMessage{Op: "req", ID: id, Method: method, Path: target, Body: body})
	if err != nil {
		c.forget(id)
		return Result{}, fmt.Errorf("encode call: %w", err)
	}
	if err := l.send(wire.OpText, m); err != nil {
		c.forget(id)
		return Result{}, fmt.Errorf("send call: %w", err)
	}
	select {
	case r, ok := <-ch:
		if !ok {
			return Result{}, ErrDisconnected
		}
		return r, nil
	case <-ctx.Done():
		c.forget(id)
		_ = l.send(wire.OpText, fmt.Appendf(nil, `{"op":"cancel","id":%d}`, id))
		return Result{}, ctx.Err()
	}
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.pending, id)
}

type tokenMessage struct {
	Op    string `json:"op"`
	Since string `json:"since,omitempty"`
	Token string `json:"access_token,omitempty"`
}

// Ack acknowledges the to-device messages up to since. It does not wait: there is
// no answer.
func (c *Client) Ack(since string) error {
	m, err := json.Marshal(tokenMessage{Op: "ack", Since: since})
	if err != nil {
		return fmt.Errorf("encode ack: %w", err)
	}
	return c.send(m)
}

// Ping waits for a round trip.
func (c *Client) Ping(ctx context.Context) error {
	return c.ask(ctx, &c.mu.pings, []byte(`{"op":"ping"}`))
}

// Auth sends a new access token, which later reconnects use too.
func (c *Client) Auth(ctx context.Context, token string) error {
	m, err := json.Marshal(tokenMessage{Op: "auth", Token: token})
	if err != nil {
		return fmt.Errorf("encode auth: %w", err)
	}
	c.mu.Lock()
	c.opts.Token = token
	c.mu.Unlock()
	return c.ask(ctx, &c.mu.auths, m)
}

// ask sends a message and waits for its answer. Answers of one kind are all the
// same, so it does not matter who takes which.
func (c *Client) ask(ctx context.Context, waiting *[]chan struct{}, m []byte) error {
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	l := c.mu.link
	if l == nil {
		c.mu.Unlock()
		return ErrDisconnected
	}
	*waiting = append(*waiting, ch)
	c.mu.Unlock()
	if err := l.send(wire.OpText, m); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	select {
	case _, ok := <-ch:
		if !ok {
			return ErrDisconnected
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// SendRaw sends any text message, for tests of the server.
func (c *Client) SendRaw(m []byte) error { return c.send(m) }

func (c *Client) send(m []byte) error {
	c.mu.Lock()
	l := c.mu.link
	c.mu.Unlock()
	if l == nil {
		return ErrDisconnected
	}
	return l.send(wire.OpText, m)
}
