package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
	"github.com/hubbub-chat/hubbub/test/caller"
	"github.com/hubbub-chat/hubbub/test/history"
)

// diskRoom is what a full disk leaves for the server to begin with.
const diskRoom = 48 << 20

// limitedDisk makes a data directory on a small file system of its own, and returns how
// to give it room. Where that may not be mounted, the files may not grow instead, which
// a shell sees to.
func limitedDisk(t *testing.T) (dir string, shell []string, room func()) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128m"); err != nil {
		t.Logf("no file system of its own (%v): files are limited instead", err)
		shell = []string{"sh", "-c", fmt.Sprintf(`ulimit -f %d; exec "$@"`, (2<<20)/512), "sh"}
		return dir, shell, func() {}
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, int64(st.Bavail)*st.Bsize-diskRoom), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, nil, func() {
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
	}
}

// alone is a single server on the embedded store.
type alone struct {
	t      *testing.T
	binary string
	dir    string
	addr   string
	log    *os.File
	proc   *exec.Cmd
	ended  chan struct{}
}

func (a *alone) start(shell []string) {
	a.t.Helper()
	args := append(shell, a.binary, "serve", "--test-mode", "--data", filepath.Join(a.dir, "data"), "--listen", a.addr, "--metrics-listen=", "--server.partitions=8", "--log.level=warn")
	a.proc = exec.Command(args[0], args[1:]...)
	a.proc.Stdout, a.proc.Stderr = a.log, a.log
	if err := a.proc.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.ended = make(chan struct{})
	go func(p *exec.Cmd, ended chan struct{}) {
		_ = p.Wait()
		close(ended)
	}(a.proc, a.ended)
	for end := time.Now().Add(liveness); ; {
		if res, err := http.Get("http://" + a.addr + caller.API + "/login"); err == nil {
			_ = res.Body.Close()
			return
		}
		select {
		case <-a.ended:
			a.t.Fatalf("it ended at its start\n%s", a.tail())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			a.t.Fatalf("it does not start\n%s", a.tail())
		}
	}
}

func (a *alone) tail() string {
	b, _ := os.ReadFile(a.log.Name())
	return string(b[max(0, len(b)-4000):])
}

func (a *alone) end(sig syscall.Signal) {
	_ = a.proc.Process.Signal(sig) // it may have ended
	<-a.ended
}

// A disk that is full ends or refuses what cannot be written; what was acknowledged is
// there when there is room again, once and in order.
func TestChaosFullDisk(t *testing.T) {
	dir, shell, room := limitedDisk(t)
	a := &alone{t: t, binary: build(t), dir: dir, addr: faultnet.Address(t)}
	var err error
	if a.log, err = os.Create(filepath.Join(t.TempDir(), "log")); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.log.Close() }()
	a.start(shell)
	defer a.end(syscall.SIGKILL)

	// One node, which is always picked, is a fleet too.
	l := &load{
		fleet: &fleet{t: t, nodes: []*node{{name: "alone", addr: a.addr}}}, seed: rand.Uint64(), callLimit: 10 * time.Second,
		rec: history.NewRecorder(0), all: map[string]*client{}, ctx: t.Context(),
	}
	l.next()
	w := &worker{client: l.register("u")}
	defer w.Close()
	l.makeRoom(w)
	var target string
	for room := range l.all {
		target = room
	}
	const size = 40 << 10
	var acked []string
	full := false
	for i := 0; !full; i++ {
		if i > 20000 {
			t.Fatal("the disk does not become full")
		}
		ctx, cancel := context.WithTimeout(t.Context(), l.callLimit)
		// Text that does not compress.
		body := strconv.FormatUint(rand.Uint64(), 36) + strings.Repeat("x", 10)
		for len(body) < size {
			body += strconv.FormatUint(rand.Uint64(), 36)
		}
		answer := w.call(ctx, "PUT", caller.Path("rooms", target, "send", "m.room.message", fmt.Sprintf("t%d", i)), map[string]any{"msgtype": "m.text", "body": body})
		cancel()
		if full = !answer.OK(); !full {
			acked = append(acked, answer.String("event_id"))
		} else if !answer.Unknown() {
			t.Fatalf("a full disk is no mistake of the client: %d %s", answer.Status, answer.Body)
		}
	}
	t.Logf("the disk was full after %d messages", len(acked))
	room()
	a.end(syscall.SIGTERM)
	a.start(nil)

	var got []string
	for from := ""; ; {
		answer := w.call(t.Context(), "GET", caller.Path("rooms", target, "messages")+"?dir=f&limit=200"+from, nil)
		var page struct {
			Chunk []json.RawMessage `json:"chunk"`
			End   string            `json:"end"`
		}
		if err := json.Unmarshal(answer.Body, &page); err != nil || !answer.OK() {
			t.Fatalf("read: %d %s", answer.Status, answer.Body)
		}
		for _, e := range history.ParseEvents(page.Chunk) {
			if e.Type == "m.room.message" {
				got = append(got, e.ID)
			}
		}
		if page.End == "" || len(page.Chunk) == 0 {
			break
		}
		from = "&from=" + page.End
	}
	// The one that was not answered may be there.
	if len(got) < len(acked) || len(got) > len(acked)+1 || strings.Join(got[:len(acked)], " ") != strings.Join(acked, " ") {
		t.Errorf("%d messages are there, %d were acknowledged", len(got), len(acked))
	}
	if a := w.call(t.Context(), "PUT", caller.Path("rooms", target, "send", "m.room.message", "after"), map[string]any{"msgtype": "m.text", "body": "room"}); !a.OK() {
		t.Errorf("with room again: %d %s", a.Status, a.Body)
	}
	a.end(syscall.SIGTERM)
	out, err := exec.Command(a.binary, "fsck", "--test-mode", "--data", filepath.Join(dir, "data"), "--server.partitions=8").CombinedOutput()
	if err != nil {
		t.Errorf("fsck: %v\n%s", err, out)
	}
}
