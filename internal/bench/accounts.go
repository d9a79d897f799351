package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sync/errgroup"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// setupWorkers make users and rooms at the same time: enough to fill the
// server's batches.
const setupWorkers = 64

// password is that of every user of the load generator.
const password = "correct horse battery staple"

// user is an account of the load generator.
type user struct {
	id    ids.UserID
	token string
}

// errStatus is an answer other than 200 while a scenario is set up.
var errStatus = errors.New("the server refused")

// caller makes requests for any user; out, if not nil, takes the answer. It is
// not what is measured.
type caller struct {
	url  string
	http *http.Client
}

func newCaller(base string) *caller {
	return &caller{url: base, http: &http.Client{
		Timeout:   time.Minute,
		Transport: &http.Transport{MaxIdleConnsPerHost: setupWorkers, MaxConnsPerHost: setupWorkers},
	}}
}

func (c *caller) call(ctx context.Context, u user, method, target string, in, out any) error {
	var body string
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, target, err)
		}
		body = string(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.url+target, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, target, err)
	}
	if u.token != "" {
		req.Header.Set("Authorization", "Bearer "+u.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, target, err)
	}
	defer res.Body.Close()
	var failure struct {
		Code string `json:"errcode"`
		Text string `json:"error"`
	}
	if res.StatusCode != http.StatusOK {
		_ = json.UnmarshalRead(res.Body, &failure) // the status says enough
		return fmt.Errorf("%s %s: %w: %d %s %s", method, target, errStatus, res.StatusCode, failure.Code, failure.Text)
	}
	if out == nil {
		out = new(struct{})
	}
	if err := json.UnmarshalRead(res.Body, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, target, err)
	}
	return nil
}

// parallel runs f for 0 to n-1, some at the same time.
func parallel(ctx context.Context, n, workers int, f func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return f(ctx, i) })
	}
	return g.Wait()
}

// register makes n users whose names begin with a prefix.
func (c *caller) register(ctx context.Context, prefix string, n int) ([]user, error) {
	users := make([]user, n)
	err := parallel(ctx, n, setupWorkers, func(ctx context.Context, i int) error {
		var out struct {
			UserID ids.UserID `json:"user_id"`
			Token  string     `json:"access_token"`
		}
		err := c.call(ctx, user{}, http.MethodPost, "/_matrix/client/v3/register", map[string]any{
			"username": prefix + strconv.Itoa(i), "password": password, "auth": map[string]string{"type": "m.login.dummy"},
		}, &out)
		users[i] = user{id: out.UserID, token: out.Token}
		return err
	})
	return users, err
}

// room is a room of the load generator; the first of its members made it.
type room struct {
	id    ids.RoomID
	users []user
}

// createRooms makes one public room for each group of size users.
func (c *caller) createRooms(ctx context.Context, users []user, size int) ([]room, error) {
	rooms := make([]room, len(users)/size)
	err := parallel(ctx, len(rooms), setupWorkers, func(ctx context.Context, i int) error {
		r := &rooms[i]
		r.users = users[i*size : (i+1)*size]
		return c.createRoom(ctx, r, "load "+strconv.Itoa(i))
	})
	if err != nil {
		return nil, err
	}
	err = parallel(ctx, len(users), setupWorkers, func(ctx context.Context, i int) error {
		// Neighbours in time join different rooms: a room takes one at a time.
		r := &rooms[i%len(rooms)]
		n := i / len(rooms)
		if n == 0 || n >= size {
			return nil
		}
		return c.join(ctx, r.users[n], r.id)
	})
	return rooms, err
}

// createRoom makes a public room, whose first user is alone in it.
func (c *caller) createRoom(ctx context.Context, r *room, name string) error {
	var out struct {
		RoomID ids.RoomID `json:"room_id"`
	}
	err := c.call(ctx, r.users[0], http.MethodPost, "/_matrix/client/v3/createRoom",
		map[string]string{"preset": "public_chat", "name": name}, &out)
	r.id = out.RoomID
	return err
}

func (c *caller) join(ctx context.Context, u user, id ids.RoomID) error {
	return c.call(ctx, u, http.MethodPost, "/_matrix/client/v3/join/"+url.PathEscape(string(id)), struct{}{}, nil)
}

// historyPage is how many events one request for history asks for.
const historyPage = 1000

// history reads a room's messages of the run. If the room has older ones, it is read
// backwards, as far as there are messages of the run. Errors that are errStatus may mean
// that the server has no such endpoint.
func (c *caller) history(ctx context.Context, r room, older bool) (history, error) {
	dir := "f"
	if older {
		dir = "b"
	}
	var all history
	for from := ""; ; {
		q := url.Values{"dir": {dir}, "limit": {strconv.Itoa(historyPage)}}
		if from != "" {
			q.Set("from", from)
		}
		var page struct {
			Chunk []receivedJSON `json:"chunk"`
			End   string         `json:"end"`
		}
		target := "/_matrix/client/v3/rooms/" + url.PathEscape(string(r.id)) + "/messages?" + q.Encode()
		if err := c.call(ctx, r.users[0], http.MethodGet, target, nil, &page); err != nil {
			return nil, fmt.Errorf("history of %s: %w", r.id, err)
		}
		mine := ours(page.Chunk)
		all = append(all, mine...)
		if page.End == "" || page.End == from || len(page.Chunk) == 0 || older && len(mine) == 0 {
			break
		}
		from = page.End
	}
	if older {
		slices.Reverse(all)
	}
	return all, nil
}
