package admin_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/storage/pebblestore"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// traces stops a server and lists the rows of its store that hold a text.
func traces(t *testing.T, s *apptest.Server, text string) map[storage.Table]int {
	t.Helper()
	s.Stop()
	st, err := pebblestore.Open(filepath.Join(s.Config.Server.DataDir, "store"), pebblestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	out := map[storage.Table]int{}
	for p := range s.Config.Server.Partitions {
		after := storage.Key{Partition: ids.Partition(p)}
		for {
			rows, err := st.ScanPartition(context.Background(), after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				if strings.Contains(r.Key.Entity+r.Key.Sort, text) || bytes.Contains(r.Value, []byte(text)) {
					out[r.Key.Table]++
				}
			}
			if len(rows) < 1000 {
				break
			}
			after = rows[len(rows)-1].Key
		}
	}
	return out
}

func fsck(t *testing.T, s *apptest.Server) {
	t.Helper()
	var out bytes.Buffer
	if err := app.Fsck(context.Background(), s.Config, &out); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
}

// busy is a room in which much has happened, with its aliases.
func busy(t *testing.T, by *apptest.Client, others ...*apptest.Client) string {
	t.Helper()
	room := by.CreateRoom(t, object{"preset": "public_chat", "visibility": "public", "room_alias_name": "busy"})
	at := client + "/rooms/" + esc(room)
	for _, o := range others {
		o.Join(t, room)
	}
	root := by.Send(t, room, "the root")
	by.Send(t, room, "xylophone")
	for i := range 5 {
		by.Must(t, "PUT", fmt.Sprintf("%s/send/m.room.message/thread%d", at, i), object{
			"msgtype": "m.text", "body": "reply", "m.relates_to": object{"rel_type": "m.thread", "event_id": root},
		})
	}
	for i, o := range others {
		o.Must(t, "PUT", fmt.Sprintf("%s/send/m.reaction/r%d", at, i), object{
			"m.relates_to": object{"rel_type": "m.annotation", "event_id": root, "key": "+1"},
		})
		o.Must(t, "POST", at+"/receipt/m.read/"+esc(root), object{})
		o.Must(t, "PUT", client+"/user/"+esc(o.UserID)+"/rooms/"+esc(room)+"/tags/m.favourite", object{})
	}
	return room
}

func TestDeletedRoomLeavesNothing(t *testing.T) {
	s := apptest.Start(t)
	root, bob, carol := s.Admin(t, "root"), s.User(t, "bob").Apart(t), s.User(t, "carol").Apart(t)
	kept := bob.CreateRoom(t, nil)
	room := busy(t, bob, carol)
	gone := s.User(t, "gone").Apart(t) // was there, and left
	gone.Join(t, room)
	gone.Must(t, "POST", client+"/rooms/"+esc(room)+"/leave", nil)
	for i := range 30 {
		bob.Send(t, room, fmt.Sprint("message ", i))
	}
	carol.Must(t, "GET", client+"/notifications", nil) // from now on they are kept
	notified := 0
	for tries := 0; notified == 0; tries++ {
		if tries > 500 {
			t.Fatal("nobody is notified")
		}
		bob.Send(t, room, "hear")
		root.Must(t, "GET", client+"/sync?timeout=20&since="+root.Sync(t, "")["next_batch"].(string), nil)
		notified = len(carol.Must(t, "GET", client+"/notifications", nil)["notifications"].([]any))
	}
	since := carol.Sync(t, "")["next_batch"].(string)

	begun := root.Must(t, "DELETE", base+"/v2/rooms/"+esc(room), object{"purge": true})
	s.Restart(t) // wherever the job is, it goes on
	status := root.Must(t, "GET", base+"/v2/rooms/delete_status/"+begun["delete_id"].(string), nil)
	if status["status"] != "active" && status["status"] != "complete" {
		t.Errorf("status: %v", status)
	}
	for deadline := 0; status["status"] != "complete"; deadline++ {
		if deadline > 1000 || status["status"] == "failed" {
			t.Fatalf("status: %v", status)
		}
		// A sync waits for something to happen, and nothing does: a bounded pause.
		root.Must(t, "GET", client+"/sync?timeout=20&since="+root.Sync(t, "")["next_batch"].(string), nil)
		status = root.Must(t, "GET", base+"/v2/rooms/delete_status/"+begun["delete_id"].(string), nil)
	}
	same(t, "kicked", len(status["shutdown_room"].(object)["kicked_users"].([]any)), 2)
	same(t, "by room", len(root.Must(t, "GET", base+"/v2/rooms/"+esc(room)+"/delete_status", nil)["results"].([]any)), 1)

	// Nobody finds it, and nobody stumbles over it.
	root.Fails(t, "GET", base+"/v1/rooms/"+esc(room), nil, 404, "M_NOT_FOUND")
	bob.Fails(t, "POST", client+"/join/"+esc(room), object{}, 404, "M_NOT_FOUND")
	bob.Fails(t, "PUT", client+"/rooms/"+esc(room)+"/send/m.room.message/x", object{}, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", client+"/rooms/"+esc(room)+"/messages?dir=b", nil, 403, "M_FORBIDDEN")
	bob.Fails(t, "GET", client+"/directory/room/"+esc("#busy:"+apptest.Name), nil, 404, "M_NOT_FOUND")
	same(t, "directory", len(bob.Must(t, "GET", client+"/publicRooms", nil)["chunk"].([]any)), 0)
	carol.Sync(t, since)
	carol.Sync(t, "")
	bob.Send(t, kept, "still here")

	left := traces(t, s, room)
	// The log names positions, the outbox keeps what has arrived until the next
	// commit of its partition, and the job says what it did.
	delete(left, tables.Outbox)
	delete(left, tables.Log)
	delete(left, tables.PurgeJob)
	if len(left) > 0 {
		t.Errorf("rows that name the room, by table: %v", left)
	}
	fsck(t, s)
}

func TestDeleteRoomForms(t *testing.T) {
	s := apptest.Start(t)
	root, bob, carol := s.Admin(t, "root"), s.User(t, "bob").Apart(t), s.User(t, "carol").Apart(t)
	room := busy(t, bob, carol)
	out := root.Must(t, "DELETE", base+"/v1/rooms/"+esc(room), object{
		"new_room_user_id": root.UserID, "room_name": "Why", "message": "because", "block": true, "purge": false,
	})
	next, _ := out["new_room_id"].(string)
	same(t, "aliases", out["local_aliases"], []string{"#busy:" + apptest.Name})
	same(t, "alias leads on", bob.Must(t, "GET", client+"/directory/room/"+esc("#busy:"+apptest.Name), nil)["room_id"], next)
	same(t, "the new room", column(root.Must(t, "GET", base+"/v1/rooms?search_term=Why", nil), "rooms", "joined_members"), []string{"3"})
	same(t, "the old one", root.Must(t, "GET", base+"/v1/rooms/"+esc(room), nil)["joined_members"], 0)
	same(t, "blocked", root.Must(t, "GET", base+"/v1/rooms/"+esc(room)+"/block", nil)["user_id"], root.UserID)
	bob.Fails(t, "POST", client+"/join/"+esc(room), object{}, 403, "M_FORBIDDEN")
	root.Must(t, "PUT", base+"/v1/rooms/"+esc(room)+"/block", object{"block": false})
	bob.Join(t, room)

	root.Fails(t, "DELETE", base+"/v2/rooms/!none:h", object{}, 404, "M_NOT_FOUND")
	root.Fails(t, "DELETE", base+"/v2/rooms/"+esc(room), object{"new_room_user_id": "@none:h"}, 404, "M_NOT_FOUND")
	root.Fails(t, "GET", base+"/v2/rooms/delete_status/none", nil, 404, "M_NOT_FOUND")
	root.Fails(t, "GET", base+"/v2/rooms/!none:h/delete_status", nil, 404, "M_NOT_FOUND")
	root.Fails(t, "PUT", base+"/v1/rooms/"+esc(room)+"/block", object{}, 400, "M_MISSING_PARAM")
	bob.Fails(t, "DELETE", base+"/v2/rooms/"+esc(room), object{}, 403, "M_FORBIDDEN")
}

// texts are what a user finds in a room's history, walking back in small pages.
func texts(t *testing.T, c *apptest.Client, room string) []string {
	t.Helper()
	var out []string
	from := ""
	for range 100 {
		page := c.Must(t, "GET", client+"/rooms/"+esc(room)+"/messages?dir=b&limit=3"+from, nil)
		for _, e := range page["chunk"].([]any) {
			if body, ok := apptest.At(e, "content", "body").(string); ok {
				out = append(out, body)
			}
		}
		if page["end"] == nil {
			return out
		}
		from = "&from=" + page["end"].(string)
	}
	t.Fatal("the history does not end")
	return nil
}

func TestPurgeHistory(t *testing.T) {
	s := apptest.Start(t)
	root, bob, carol := s.Admin(t, "root"), s.User(t, "bob").Apart(t), s.User(t, "carol").Apart(t)
	room := busy(t, bob, carol)
	for i := range 10 {
		bob.Send(t, room, fmt.Sprint("old ", i))
	}
	bob.Must(t, "PUT", client+"/rooms/"+esc(room)+"/state/m.room.topic/", object{"topic": "in between"})
	since := carol.Sync(t, "")["next_batch"].(string)
	cut := bob.Send(t, room, "new 0")
	bob.Send(t, room, "new 1")

	purge := func(body object) object {
		t.Helper()
		id := root.Must(t, "POST", base+"/v1/purge_history/"+esc(room), body)["purge_id"].(string)
		status := root.Must(t, "GET", base+"/v1/purge_history_status/"+id, nil)
		for tries := 0; status["status"] == "active" && tries < 1000; tries++ {
			root.Must(t, "GET", client+"/sync?timeout=20&since="+root.Sync(t, "")["next_batch"].(string), nil)
			status = root.Must(t, "GET", base+"/v1/purge_history_status/"+id, nil)
		}
		same(t, "status", status["status"], "complete")
		return status
	}
	found := func(word string) float64 {
		t.Helper()
		out := bob.Must(t, "POST", client+"/search", object{"search_categories": object{"room_events": object{"search_term": word}}})
		return apptest.At(out, "search_categories", "room_events", "count").(float64)
	}
	same(t, "found", found("xylophone"), 1)
	same(t, "without local events", purge(object{"purge_up_to_event_id": cut})["removed"], 0)
	if n := len(texts(t, bob, room)); n < 18 {
		t.Errorf("%d texts before", n)
	}
	removed := purge(object{"purge_up_to_event_id": cut, "delete_local_events": true})["removed"].(float64)
	if removed < 17 {
		t.Errorf("removed: %v", removed)
	}
	same(t, "left", texts(t, bob, room), []string{"new 1", "new 0"})
	same(t, "found", found("xylophone"), 0)
	same(t, "found of the rest", found("new"), 2)
	same(t, "again", purge(object{"purge_up_to_event_id": cut, "delete_local_events": true})["removed"], 0)
	same(t, "topic", bob.Must(t, "GET", client+"/rooms/"+esc(room)+"/state/m.room.topic/", nil)["topic"], "in between")
	same(t, "threads", len(bob.Must(t, "GET", "/_matrix/client/v1/rooms/"+esc(room)+"/threads", nil)["chunk"].([]any)), 0)
	// The room goes on, for who was there and who comes.
	bob.Send(t, room, "new 2")
	carol.Sync(t, since)
	carol.Sync(t, "")
	root.Join(t, room)
	root.Sync(t, "")
	// By time; the last event stays, as the chain goes on from it.
	purge(object{"purge_up_to_ts": 4e12, "delete_local_events": true})
	same(t, "by time", texts(t, bob, room), []string{})
	last := bob.Send(t, room, "the end")
	bob.Must(t, "GET", client+"/rooms/"+esc(room)+"/event/"+esc(last), nil)

	for _, c := range []struct {
		path   string
		body   object
		status int
		code   string
	}{
		{esc(room), object{}, 400, "M_BAD_JSON"},
		{esc(room) + "/$none", object{}, 404, "M_NOT_FOUND"},
		{"!none:h", object{"purge_up_to_ts": 1}, 404, "M_NOT_FOUND"},
	} {
		root.Fails(t, "POST", base+"/v1/purge_history/"+c.path, c.body, c.status, c.code)
	}
	root.Fails(t, "GET", base+"/v1/purge_history_status/none", nil, 404, "M_NOT_FOUND")
	left := traces(t, s, "xylophone") // of which the search index has every ending
	delete(left, tables.Log)
	if len(left) > 0 {
		t.Errorf("rows that hold what was purged, by table: %v", left)
	}
	fsck(t, s)
}
