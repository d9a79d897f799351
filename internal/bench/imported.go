package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// writeLines writes the lines of an import.
type writeLines func(w *bufio.Writer)

// startImported starts a server on data that hubbub import made, which is what
// requests would have made of it, sooner. It is measured when what that left to do is
// done.
func (e *env) startImported(ctx context.Context, name string, lines writeLines) (*server, error) {
	o, err := e.importAll(ctx, name, lines)
	if err != nil {
		return nil, err
	}
	srv, err := start(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := srv.calm(ctx, min(calmEvery, e.Duration)); err != nil {
		return nil, errors.Join(err, srv.close())
	}
	return srv, nil
}

// importAll makes the data, and says how to start a server on it.
func (e *env) importAll(ctx context.Context, name string, lines writeLines) (o serveOptions, err error) {
	if o, err = e.serveOptions(name); err != nil {
		return o, err
	}
	args := append([]string{"import", "--test-mode", "--unsearched", "--data", filepath.Join(o.dir, "data")}, o.args...)
	cmd := exec.CommandContext(ctx, o.program, append(args, "-")...)
	cmd.SysProcAttr = childAttributes()
	log, err := os.Create(filepath.Join(o.dir, "import.log"))
	if err != nil {
		return o, fmt.Errorf("log of the import: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cmd.Stdout, cmd.Stderr = log, log
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return o, fmt.Errorf("start the import: %w", err)
	}
	w := bufio.NewWriterSize(in, 1<<20)
	lines(w)
	failed := errors.Join(w.Flush(), in.Close()) // for which the process has a better reason
	if err := cmd.Wait(); err != nil {
		return o, fmt.Errorf("import: %w: %s", err, lastWords(log.Name()))
	}
	return o, failed
}

const (
	// calmShare is the part of a processor that a server which nobody asks anything
	// may take: more is work that is left of before.
	calmShare = 0.04
	// calmEvery is how long it is looked at, with tests' short runs less.
	calmEvery = 2 * time.Second
	// calmPatience bounds the wait: a store of ten million messages is merged for
	// minutes.
	calmPatience = 10 * time.Minute
)

// calm waits until the server has had nothing to do for some time.
func (s *server) calm(ctx context.Context, every time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, calmPatience)
	defer cancel()
	before := takeSample(ctx, s)
	for {
		if err := sleep(ctx, every); err != nil {
			return fmt.Errorf("wait until the server is calm: %w", err)
		}
		now := takeSample(ctx, s)
		w := between(before, now)
		if w.noCPU != nil || w.cores(w.cpu) < calmShare {
			return w.noCPU
		}
		before = now
	}
}

// importedUser is the name of a user of an import.
func importedUser(kind string, n int) string {
	// Names of people begin with all letters, and so do the indexes of them.
	return string(rune('a'+n%26)) + kind + strconv.Itoa(n)
}

// userLine writes a user who cannot log in, and with a password one who can.
func userLine(w *bufio.Writer, name string, login bool) {
	if login {
		fmt.Fprintf(w, `{"user":%q,"password":%q}`+"\n", name, password)
	} else {
		fmt.Fprintf(w, `{"user":%q}`+"\n", name)
	}
}

// openRoom is the state of a room that anyone may join, and no more.
const openRoom = `"preset":"none","state":[{"type":"m.room.join_rules","state_key":"","content":{"join_rule":"public"}}]`

// roomLine writes a room that its members have joined; the first made it.
func roomLine(w *bufio.Writer, name string, members ...string) {
	fmt.Fprintf(w, `{"room":%q,"creator":%q,%s,"members":[`, name, members[0], openRoom)
	for i, m := range members[1:] {
		if i > 0 {
			_ = w.WriteByte(',') // Flush tells
		}
		fmt.Fprintf(w, "%q", m)
	}
	fmt.Fprintln(w, "]}")
}

// login logs imported users in.
func (c *caller) login(ctx context.Context, names []string) ([]user, error) {
	users := make([]user, len(names))
	err := parallel(ctx, len(names), setupWorkers, func(ctx context.Context, i int) error {
		var out struct {
			UserID ids.UserID `json:"user_id"`
			Token  string     `json:"access_token"`
		}
		err := c.call(ctx, user{}, http.MethodPost, "/_matrix/client/v3/login", map[string]any{
			"type": "m.login.password", "password": password, "identifier": map[string]string{"type": "m.id.user", "user": names[i]},
		}, &out)
		users[i] = user{id: out.UserID, token: out.Token}
		return err
	})
	return users, err
}

// joined lists the rooms that a user is in.
func (c *caller) joined(ctx context.Context, u user) ([]ids.RoomID, error) {
	var out struct {
		Rooms []ids.RoomID `json:"joined_rooms"`
	}
	err := c.call(ctx, u, http.MethodGet, "/_matrix/client/v3/joined_rooms", nil, &out)
	return out.Rooms, err
}
