package apptest

import (
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
)

// Access says who may call a route.
type Access string

// The kinds of access.
const (
	// Anyone may call, with a token or without.
	Anyone Access = "anyone"
	// Users may call, with a token.
	Users Access = "users"
	// Admins may call, with a token.
	Admins Access = "admins"
)

// Route is a row of the server's table of routes.
type Route struct {
	Method, Path string
	Access       Access
	Rate         string
	// Stream routes are raw HTTP: media, pages, sockets.
	Stream bool
}

// Routes is the server's table of routes.
func (s *Server) Routes() []Route {
	var out []Route
	for _, r := range s.app.Routes() {
		row := Route{Method: r.Method, Path: r.Path, Access: Anyone, Rate: string(r.Rate), Stream: r.Stream != nil}
		switch r.Auth {
		case api.AuthUser:
			row.Access = Users
		case api.AuthAdmin:
			row.Access = Admins
		}
		out = append(out, row)
	}
	return out
}

// MetricsURL is where metrics are served; Config.Server.MetricsListen asked for it.
func (s *Server) MetricsURL() string { return "http://" + s.app.MetricsAddr().String() }

// CaughtUp waits until a consumer of the log, or with "" each, has handled what was said
// before. It asks at MetricsURL.
func (s *Server) CaughtUp(t testing.TB, consumer string) {
	t.Helper()
	if consumer == "" {
		consumer = `[^"]*`
	}
	lag := regexp.MustCompile(`(?m)^hubbub_consumer_lag_positions\{consumer="` + consumer + `"\} (.*)$`)
	for ; ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(s.MetricsURL() + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close(), t.Context().Err()); err != nil {
			t.Fatal(err)
		}
		lags := lag.FindAllStringSubmatch(string(text), -1)
		if len(lags) == 0 {
			t.Fatal("nothing follows the log")
		}
		if !slices.ContainsFunc(lags, func(m []string) bool { return m[1] != "0" }) {
			return
		}
	}
}

// pageOfRows is how many rows are read at once.
const pageOfRows = 1000

// Rows calls fn with all rows of the embedded store of a server that was stopped,
// in the bytes that are stored: the key's parts joined by spaces, and the value.
func (s *Server) Rows(t testing.TB, fn func(key string, value []byte)) {
	t.Helper()
	store, err := pebblestore.Open(filepath.Join(s.Config.Server.DataDir, "store"), pebblestore.Options{})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	}()
	for p := range s.Config.Server.Partitions {
		after := storage.Key{Partition: ids.Partition(p)}
		for {
			rows, err := store.ScanPartition(t.Context(), after, pageOfRows)
			if err != nil {
				t.Fatalf("read store: %v", err)
			}
			for _, r := range rows {
				fn(r.Key.Entity+" "+r.Key.Sort, r.Value)
			}
			if len(rows) < pageOfRows {
				break
			}
			after = rows[len(rows)-1].Key
		}
	}
}
