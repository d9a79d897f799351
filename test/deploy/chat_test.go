package deploy

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// awkward is a localpart of an alias with what proxies like to decode or to fold.
const awkward = "a/b//c%2Fd..e/../f?g"

// chat does what clients do, through the proxy.
func (f *through) chat(s *apptest.Server) {
	t := f.t
	alice, bob := f.user(s, "alice"), f.user(s, "bob")
	alice.Must(t, "GET", "/_matrix/client/v3/account/whoami", nil)

	room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat", "room_alias_name": awkward})
	alias := "#" + awkward + ":" + apptest.Name
	found := bob.Must(t, "GET", "/_matrix/client/v3/directory/room/"+url.PathEscape(alias), nil)
	if found["room_id"] != room {
		t.Errorf("the alias %s leads to %v, want %s", alias, found["room_id"], room)
	}
	bob.Join(t, alias)

	f.longPoll(alice, bob, room)
	f.socket(alice, bob, room)
	f.upload(alice)
	f.address(bob)
}

func (f *through) user(s *apptest.Server, name string) *apptest.Client {
	f.t.Helper()
	c := s.Anonymous()
	c.HTTP = f.client()
	body := c.Must(f.t, "POST", "/_matrix/client/v3/register", apptest.Object{
		"username": name, "password": apptest.Password, "auth": apptest.Object{"type": "m.login.dummy"},
	})
	login := c.Must(f.t, "POST", "/_matrix/client/v3/login", apptest.Object{
		"type": "m.login.password", "password": apptest.Password,
		"identifier": apptest.Object{"type": "m.id.user", "user": body["user_id"]},
	})
	c.UserID, c.Token, c.Device = login["user_id"].(string), login["access_token"].(string), login["device_id"].(string)
	return c
}

// longPoll: a sync that waits is answered when something comes.
func (f *through) longPoll(alice, bob *apptest.Client, room string) {
	t := f.t
	since := alice.Sync(t, "")["next_batch"].(string)
	answer := make(chan apptest.Object, 1)
	go func() {
		for {
			o := alice.Must(t, "GET", "/_matrix/client/v3/sync?timeout=30000&since="+url.QueryEscape(since), nil)
			if strings.Contains(text(t, o), "for the long poll") {
				answer <- o
				return
			}
			since, _ = o["next_batch"].(string)
			if since == "" {
				answer <- nil
				return
			}
		}
	}()
	bob.Send(t, room, "for the long poll")
	if o := <-answer; o == nil {
		t.Error("the long poll was not answered")
	}
}

func text(t *testing.T, o any) string {
	t.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		t.Error(err)
	}
	return string(raw)
}

// socket: two people talk over WebSockets.
func (f *through) socket(alice, bob *apptest.Client, room string) {
	t := f.t
	heard := make(chan struct{}, 1)
	a := f.dialSocket(alice, func(frame []byte) {
		if bytes.Contains(frame, []byte("over the socket")) {
			select {
			case heard <- struct{}{}:
			default:
			}
		}
	})
	b := f.dialSocket(bob, func([]byte) {})
	target := "/_matrix/client/v3/rooms/" + url.PathEscape(room) + "/send/m.room.message/socket1"
	res, err := b.Call(t.Context(), "PUT", target, []byte(`{"msgtype":"m.text","body":"over the socket"}`))
	if err != nil || res.Status != http.StatusOK {
		t.Fatalf("send over the socket: %v, %v", res, err)
	}
	select {
	case <-heard:
	case <-a.Done():
		t.Errorf("the socket ended: %v", a.Err())
	}
}

func (f *through) dialSocket(c *apptest.Client, take func([]byte)) *wsclient.Client {
	f.t.Helper()
	// The client of tests speaks no TLS; this is the way in between.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = l.Close() })
	go f.wrap(l)
	ws, err := wsclient.Dial(f.t.Context(), "http://"+l.Addr().String(), wsclient.Options{Token: c.Token, Sync: true, OnFrame: take})
	if err != nil {
		f.t.Fatalf("open a socket: %v", err)
	}
	f.t.Cleanup(func() { _ = ws.Close() })
	return ws
}

// wrap carries one connection to the proxy in TLS, with the name of the host in
// the request.
func (f *through) wrap(l net.Listener) {
	in, err := l.Accept()
	if err != nil {
		return
	}
	raw, err := f.dial(context.WithoutCancel(f.t.Context()))
	if err != nil {
		_ = in.Close()
		return
	}
	out := tls.Client(raw, &tls.Config{RootCAs: f.pool, ServerName: host, NextProtos: []string{"http/1.1"}})
	pipe(in, out, "Host: "+l.Addr().String(), "Host: "+host)
}

// pipe copies both ways until one side ends, and replaces a text in the first
// bytes that go out.
func pipe(in, out net.Conn, from, to string) {
	done := make(chan struct{}, 2)
	copyTo := func(dst, src net.Conn, change func([]byte) []byte) {
		buf := make([]byte, 64<<10)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				if _, werr := dst.Write(change(buf[:n])); werr != nil {
					break
				}
				change = func(b []byte) []byte { return b }
			}
			if err != nil {
				break
			}
		}
		done <- struct{}{}
	}
	go copyTo(out, in, func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) })
	go copyTo(in, out, func(b []byte) []byte { return b })
	<-done
	_ = in.Close()
	_ = out.Close()
}

// upload: 20 MB there and back.
func (f *through) upload(c *apptest.Client) {
	t := f.t
	content := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	uri, _ := c.Must(t, "POST", "/_matrix/media/v3/upload", content)["content_uri"].(string)
	status, got, _ := c.Raw(t, "GET", "/_matrix/client/v1/media/download/"+strings.TrimPrefix(uri, "mxc://"), nil)
	if status != http.StatusOK || !bytes.Equal(got, content) {
		t.Errorf("download: %d, %d bytes of %d", status, len(got), len(content))
	}
}

// address: the server sees the client's address and not the proxy's, nor what the
// client claims.
func (f *through) address(c *apptest.Client) {
	t := f.t
	req, _ := http.NewRequestWithContext(t.Context(), "POST", f.url+"/_matrix/client/v3/login", strings.NewReader(text(t, apptest.Object{
		"type": "m.login.password", "password": apptest.Password, "device_id": "FORGED",
		"identifier": apptest.Object{"type": "m.id.user", "user": c.UserID},
	})))
	req.Header.Set("X-Forwarded-For", "203.0.113.9")
	res, err := c.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	got := c.Must(t, "GET", "/_matrix/client/v3/devices/FORGED", nil)
	if got["last_seen_ip"] != "127.0.0.2" {
		t.Errorf("the server saw the address %v, want 127.0.0.2", got["last_seen_ip"])
	}
}
