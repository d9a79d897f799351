package importer

import (
	"context"
	"errors"
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/event"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
)

// maxImportBytes is about how much content one command appends: with the rows that
// repeat it, and what a batch has besides, it stays far below a batch's bound.
const maxImportBytes = 1 << 20

// lane does its lines one after another. A room's are all in one.
type lane struct {
	*importer
	queue chan *line
	// rooms are the rooms of this import by their names in it.
	rooms map[string]ids.RoomID
	// next is a line that was taken from the queue too early.
	next *line
}

// take returns the next line, nil if there is none now or, with wait, none any more.
func (l *lane) take(wait bool) *line {
	if n := l.next; n != nil {
		l.next = nil
		return n
	}
	if wait {
		return <-l.queue
	}
	select {
	case n := <-l.queue:
		return n
	default:
		return nil
	}
}

func (l *lane) run(ctx context.Context) {
	for {
		first := l.take(true)
		if first == nil {
			return
		}
		n, err := 1, error(nil)
		switch {
		case ctx.Err() != nil: // the queue is emptied, so that nobody waits for it
		case first.User != "":
			err = l.user(ctx, first)
		case first.Event == "":
			err = l.room(ctx, first)
		default:
			n, err = l.events(ctx, first)
		}
		l.busy.Add(-n)
		if err != nil && ctx.Err() == nil {
			l.stop(first.at(err))
		}
	}
}

// at adds the line to an error that does not name one yet.
func (l *line) at(err error) error {
	if named := (*lineError)(nil); errors.As(err, &named) {
		return named.line.failed(named.cause)
	}
	return l.failed(err)
}

// lineError is an error of another line than the first of those that were done
// together.
type lineError struct {
	line  *line
	cause error
}

var _ error = (*lineError)(nil)

// Error implements error.
func (e *lineError) Error() string { return e.line.failed(e.cause).Error() }

// Unwrap returns the error without its line.
func (e *lineError) Unwrap() error { return e.cause }

func (l *lane) user(ctx context.Context, n *line) error {
	user, err := l.userID(n.User)
	if err != nil {
		return err
	}
	a := account.Account{PasswordHash: n.PasswordHash, Admin: n.Admin}
	switch {
	case n.Password != "" && n.PasswordHash != "":
		return errors.New("password and password_hash exclude each other")
	case n.Password != "":
		if a.PasswordHash, err = l.Hash(ctx, n.Password); err != nil {
			return err
		}
	case n.PasswordHash != "":
		if err := l.CheckHash(n.PasswordHash); err != nil {
			return err
		}
	}
	name := n.DisplayName
	if name == "" {
		name = user.Localpart()
	}
	_, err = l.Router.Do(ctx, account.NewRegister(user, a, name, nil))
	return err
}

// roomOf returns the room that a line of an event means.
func (l *lane) roomOf(name string) (ids.RoomID, error) {
	if id, ok := l.rooms[name]; ok {
		return id, nil
	}
	if name[0] == '!' {
		return ids.ParseRoomID(name)
	}
	return "", fmt.Errorf("no line before this one makes the room %q", name)
}

// events appends the event of a line, and with it those behind it of the same room,
// as far as they have been read. It returns how many lines it took.
func (l *lane) events(ctx context.Context, first *line) (taken int, err error) {
	id, err := l.roomOf(first.Room)
	if err != nil {
		return 1, err
	}
	var drafts []roomstate.Draft
	lines := []*line{first}
	size := 0
	for n := first; ; {
		d, err := l.draft(n)
		if err != nil {
			return len(lines), &lineError{n, err}
		}
		drafts = append(drafts, d)
		size += len(d.Content)
		if len(drafts) == room.MaxImport || size > maxImportBytes {
			break
		}
		if n = l.take(false); n == nil {
			break
		}
		if n.Event == "" || n.Room != first.Room {
			l.next = n
			break
		}
		lines = append(lines, n)
	}
	err = l.append(ctx, id, drafts)
	if at := (*room.ImportError)(nil); errors.As(err, &at) {
		err = &lineError{lines[at.At], at.Cause}
	}
	return len(lines), err
}

func (l *lane) append(ctx context.Context, id ids.RoomID, drafts []roomstate.Draft) error {
	_, err := l.Router.Do(ctx, &room.Import{Room: id, Drafts: drafts})
	return err
}

// draft makes the event of a line.
func (l *lane) draft(n *line) (d roomstate.Draft, err error) {
	if d.Sender, err = l.userID(n.Sender); err != nil {
		return d, err
	}
	if len(n.Content) == 0 {
		return d, errors.New("an event needs a content")
	}
	if d.Content, err = event.CanonicalObject(nil, n.Content); err != nil {
		return d, err
	}
	d.Type, d.StateKey, d.OriginServerTS = n.Event, n.StateKey, l.time(n)
	if err := importable(&d); err != nil {
		return d, err
	}
	return d, nil
}

// importable refuses what an import would have to do more about than append it.
func importable(d *roomstate.Draft) error {
	_, related := event.RelationOf(d.Content)
	switch {
	case d.Type == event.TypeCreate:
		return errors.New("a room is created by its own line")
	case d.Type == event.TypeRedaction:
		return errors.New("leave out what was redacted: a redaction is not imported")
	case d.Type == event.TypeCanonicalAlias:
		return errors.New("an alias belongs into the line of its room")
	case related:
		return errors.New("the event relates to another, which has another ID here")
	case d.Type == event.TypePowerLevels:
		_, err := event.ParsePowerLevels(d.Content)
		return err
	}
	return nil
}

// time is when the event of a line was sent.
func (l *lane) time(n *line) int64 {
	if n.TS != 0 {
		return n.TS
	}
	return l.Clock.Now().UnixMilli()
}
