package rooms_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// unread are bob's counts as a sync tells them, with those of threads and without.
func (s *scene) unread(since string) (threads, together string) {
	s.Helper()
	filter := url.QueryEscape(`{"room":{"timeline":{"unread_thread_notifications":true}}}`)
	told := func(query string) string {
		sec := apptest.At(s.bob.Must(s.T, "GET", v3+"/sync?timeout=0&since="+since+query, nil), "rooms", "join", s.room)
		out := fmt.Sprint(apptest.At(sec, "unread_notifications", "notification_count"), "/", apptest.At(sec, "unread_notifications", "highlight_count"))
		if t := apptest.At(sec, "unread_thread_notifications"); t != nil {
			for _, n := range t.(object) {
				out += fmt.Sprint(" ", apptest.At(n, "notification_count"), "/", apptest.At(n, "highlight_count"))
			}
		}
		return out
	}
	return told("&filter=" + filter), told("")
}

func (s *scene) mark(receiptType, id string, thread any) {
	s.Helper()
	body := object{}
	if thread != nil {
		body["thread_id"] = thread
	}
	s.bob.Must(s.T, "POST", at(s.room, "receipt", receiptType, id), body)
}

// What is unread is counted for each thread, and read by receipts of its own or by
// one for all. spec: client-server §Threaded read receipts.
func TestThreadedReceipts(t *testing.T) {
	s := newScene(t, nil)
	since := s.bob.Sync(t, "")["next_batch"].(string)
	check := func(what, threads, together string) {
		t.Helper()
		a, b := s.unread(since)
		same(t, what+", threads apart", a, threads)
		same(t, what+", together", b, together)
	}
	a := s.say(s.alice, "root", nil)
	b := s.reply(s.alice, a, "in the thread")
	c := s.reply(s.alice, a, "in the thread, "+s.bob.UserID)
	d := s.say(s.alice, "hello "+s.bob.UserID, nil)
	e := s.reply(s.alice, a, "in the thread again")
	f := s.say(s.alice, "a reference", relates("m.reference", a))
	g := s.react(s.alice, f, "x")
	check("all", "3/1 3/1", "6/2")
	s.mark("m.read", a, "main")
	check("read the first", "2/1 3/1", "5/2")
	s.mark("m.read", b, a)
	check("read the first of the thread", "2/1 2/1", "4/2")
	s.mark("m.read.private", d, nil)
	check("read up to the fourth", "1/0 1/0", "2/0")
	s.mark("m.read", g, a) // it relates to the root, in the end
	check("read the thread", "1/0", "1/0")
	s.mark("m.read.private", g, "main")
	check("read all", "0/0", "0/0")

	// An edit and a reaction in a thread are in the thread.
	s.alice.Must(t, "PUT", s.path("m.room.message"), object{
		"msgtype": "m.text", "body": "* hear, " + s.bob.UserID, "m.mentions": object{"user_ids": []string{s.bob.UserID}},
		"m.new_content": object{"msgtype": "m.text", "body": "hear"}, "m.relates_to": relates("m.replace", e),
	})
	check("an edit that mentions", "0/0 1/1", "1/1")
	last := s.react(s.alice, e, "y")
	s.mark("m.read", last, a)
	check("read the edit", "0/0", "0/0")

	// What was redacted is not unread, and who sends has read.
	late := s.reply(s.alice, a, "late")
	s.say(s.alice, "late too", nil)
	check("late", "1/0 1/0", "2/0")
	s.mark("m.read", s.say(s.alice, "read", nil), "main")
	check("read the main timeline", "0/0 1/0", "1/0")
	s.say(s.alice, "late too", nil)
	s.redact(s.alice, late)
	check("redacted", "1/0", "1/0")
	s.reply(s.alice, a, "later")
	s.say(s.bob, "I am here", nil)
	check("sent in the main timeline", "0/0 1/0", "1/0")
	s.reply(s.bob, a, "and here")
	check("sent in the thread", "0/0", "0/0")
	s.reply(s.alice, a, "an answer")
	check("answered in the thread", "0/0 1/0", "1/0")

	for what, thread := range map[string]any{
		"the thread": "main", "another thread": d, "no thread": c, "an unknown thread": "$" + strings.Repeat("x", 43), "a number": 7,
		"nothing": "", "null": nil,
	} {
		body := object{"thread_id": thread}
		status, out := s.bob.Do(t, "POST", at(s.room, "receipt", "m.read", e), body)
		if status != 400 || out["errcode"] != "M_INVALID_PARAM" {
			t.Errorf("a reply as read in %s: %d %v", what, status, out)
		}
	}
	s.bob.Fails(t, "POST", at(s.room, "receipt", "m.read", d), object{"thread_id": a}, 400, "M_INVALID_PARAM")
	s.mark("m.read", a, a) // the root is read in its thread too
}

// Of two receipts of a user at one event, the one without a thread is told: it
// says more. spec: MSC4102.
func TestReceiptsAtOneEvent(t *testing.T) {
	s := newScene(t, nil)
	root := s.say(s.alice, "root", nil)
	for i, threadFirst := range []bool{true, false} {
		reply := s.reply(s.alice, root, fmt.Sprint(i))
		if threadFirst {
			s.mark("m.read", reply, root)
		}
		s.mark("m.read", reply, nil)
		if !threadFirst {
			s.mark("m.read", reply, root)
		}
		sec := apptest.At(s.alice.Sync(t, ""), "rooms", "join", s.room, "ephemeral").(object)
		told := apptest.At(list(t, sec, "events")[0], "content", reply, "m.read", s.bob.UserID)
		if thread := apptest.At(told, "thread_id"); told == nil || thread != nil {
			t.Errorf("thread first %v: told of %v", threadFirst, told)
		}
	}
}
