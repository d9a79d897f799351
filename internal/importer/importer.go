// Package importer brings users, rooms and what was said there from elsewhere into a
// deployment. It reads JSON lines, and makes of each what the request of a client
// would: the same commands, authorized by the same rules, so that what it leaves
// cannot be told from what was written here. It is quick because many lines are under
// way at once and share the partitions' batches, not because it writes past them.
//
// Lines are of three kinds, by the member that names them; docs/operations.md shows
// all members:
//
//	{"user":"alice","display_name":"Alice"}
//	{"room":"lobby","creator":"alice","preset":"public_chat","members":["bob"]}
//	{"event":"m.room.message","room":"lobby","sender":"bob","ts":…,"content":{…}}
//
// What a line names stands before it. A room has a name of the import's own, by which
// later lines of the same import mean it, or they mean one that is there by its ID.
//
// Invariants: the lines of one room are done in their order, by one lane; no line of a
// room begins before the lines of users in front of it are done; the first line that
// fails ends the import. What was done before stays: an import goes into a deployment
// that can be thrown away, or of which there is a backup.
//
// Rejected: tables written directly, which would be a second writer of every format,
// to be kept equal to the first for ever.
package importer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"sync"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/room"
)

const (
	// lanes work at the same time. Each waits for commits, of which the partitions make
	// fewer and larger ones the more there are to share them.
	lanes = 512
	// laneQueue bounds what waits for a lane: a full Import may gather.
	laneQueue = room.MaxImport
	// maxLine bounds a line in bytes: a room with a million members.
	maxLine = 64 << 20
	// reportEvery is after how many lines the caller hears how it stands.
	reportEvery = 100_000
)

// Options say where an import goes.
type Options struct {
	Router   partition.Router
	Accounts *account.Reader
	Clock    clock.Clock
	// Server is the part behind the colon of names.
	Server string
	// DefaultVersion is that of rooms which name none.
	DefaultVersion string
	// Hash hashes a password; CheckHash says whether a text is such a hash.
	Hash      func(ctx context.Context, password string) (string, error)
	CheckHash func(hash string) error
	// Report is told from time to time what was read, from one goroutine.
	Report func(Done)
}

// Done counts what was imported, or read.
type Done struct{ Lines, Users, Rooms, Events int64 }

// line is one line as it is read: the members of all three kinds.
type line struct {
	User  string `json:"user"`
	Room  string `json:"room"`
	Event string `json:"event"`

	DisplayName  string `json:"display_name"`
	Password     string `json:"password"`
	PasswordHash string `json:"password_hash"`
	Admin        bool   `json:"admin"`

	Creator         string         `json:"creator"`
	Version         string         `json:"version"`
	Preset          string         `json:"preset"`
	CreationContent jsontext.Value `json:"creation_content"`
	PowerLevels     jsontext.Value `json:"power_levels"`
	State           []stateLine    `json:"state"`
	Name            *string        `json:"name"`
	Topic           *string        `json:"topic"`
	Alias           string         `json:"alias"`
	Public          bool           `json:"public"`
	Members         []string       `json:"members"`

	Sender   string         `json:"sender"`
	StateKey *string        `json:"state_key"`
	Content  jsontext.Value `json:"content"`
	// TS is in ms since 1970; 0 for now.
	TS int64 `json:"ts"`

	number int64
}

type stateLine struct {
	Type     string         `json:"type"`
	StateKey string         `json:"state_key"`
	Content  jsontext.Value `json:"content"`
}

// importer is an import under way.
type importer struct {
	Options
	lanes []*lane
	// busy counts the lines that were given to lanes and are not done.
	busy sync.WaitGroup
	stop context.CancelCauseFunc
}

// Run imports what r has. It returns what was imported until the end or the error,
// which names its line.
func Run(ctx context.Context, r io.Reader, o Options) (Done, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	im := &importer{Options: o, stop: stop}
	var ended sync.WaitGroup
	for range lanes {
		l := &lane{importer: im, queue: make(chan *line, laneQueue), rooms: make(map[string]ids.RoomID)}
		im.lanes = append(im.lanes, l)
		ended.Go(func() { l.run(ctx) })
	}
	done, err := im.read(ctx, r)
	for _, l := range im.lanes {
		close(l.queue)
	}
	ended.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause // what a lane found comes first
	}
	if err != nil {
		return Done{}, fmt.Errorf("import: %w", err)
	}
	return done, nil
}

// errLine is about the form of a line.
var errLine = errors.New("a line has one of user, room, or event and room")

// read gives the lines to the lanes.
func (im *importer) read(ctx context.Context, r io.Reader) (done Done, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 1<<20), maxLine)
	seed := maphash.MakeSeed()
	users := false // the last line was of a user
	for in.Scan() {
		if ctx.Err() != nil {
			return done, ctx.Err()
		}
		done.Lines++
		if len(in.Bytes()) == 0 {
			continue
		}
		l := &line{number: done.Lines}
		if err := json.Unmarshal(in.Bytes(), l, json.RejectUnknownMembers(true)); err != nil {
			return done, l.failed(err)
		}
		to := l.Room
		switch {
		case l.User != "" && l.Room == "" && l.Event == "":
			to = l.User
			done.Users++
		case l.User == "" && l.Room != "" && l.Event != "":
			done.Events++
		case l.User == "" && l.Room != "":
			done.Rooms++
		default:
			return done, l.failed(errLine)
		}
		if users && l.User == "" {
			im.busy.Wait()
		}
		users = l.User != ""
		im.busy.Add(1)
		im.lanes[maphash.String(seed, to)%lanes].queue <- l
		if done.Lines%reportEvery == 0 && im.Report != nil {
			im.Report(done)
		}
	}
	if err := in.Err(); err != nil {
		return done, fmt.Errorf("line %d: %w", done.Lines+1, err)
	}
	return done, nil
}

func (l *line) failed(err error) error { return fmt.Errorf("line %d: %w", l.number, err) }

// userID returns the user that a line means: by the name alone, or the whole ID.
func (im *importer) userID(name string) (ids.UserID, error) {
	if name == "" || name[0] != '@' {
		return ids.ParseLocalpart(name, im.Server)
	}
	u, err := ids.ParseUserID(name)
	if err == nil && u.Server() != im.Server {
		err = fmt.Errorf("%s is not of %s", u, im.Server)
	}
	return u, err
}
