package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/hubbub-chat/hubbub/internal/gateway/wire"
)

// A node that has withdrawn sends its sockets elsewhere and takes no others, and when
// it is back it does.
func TestWithdrawn(t *testing.T) {
	var why atomic.Pointer[error]
	f := serve(t, Config{
		DrainSpread: 50 * time.Millisecond, times: times{recheck: 200 * time.Millisecond},
		Withdrawn: func() error {
			if e := why.Load(); e != nil {
				return *e
			}
			return nil
		},
	})
	var peers []*peer
	for i := range 20 {
		peers = append(peers, signIn(t, f, fmt.Sprintf("@u%d:x/D", i), true))
	}
	away := errors.New("cut off")
	why.Store(&away)
	for _, p := range peers {
		p.expectClose(wire.CloseUnavailable)
	}
	if _, res, err := websocket.Dial(t.Context(), f.url+wire.Path, &websocket.DialOptions{
		Subprotocols: []string{wire.Subprotocol},
	}); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("a socket of a node that has withdrawn: %v", err)
	}
	why.Store(nil)
	p := signIn(t, f, "@a:x/D", true)
	p.say(`{"op":"ping"}`)
	if m := p.hear(); m["op"] != "pong" {
		t.Errorf("after the return: %v", m)
	}
}
