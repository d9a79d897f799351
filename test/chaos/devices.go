// Package chaos runs several real nodes of one deployment, on a real PostgreSQL and
// with NATS between them, through one fault after another, while clients that change
// nodes all the time talk. What they saw is judged afterwards, by package history for
// rooms and by this one for what goes from device to device:
//
//	D1  a message to a device that was acknowledged arrives, once
//	D2  what arrives was sent, and not refused
//	D3  what one device sent another arrives in the order in which it was sent
//	K1  a one-time key is handed out once
//	K2  what is handed out was uploaded
//	K3  keys are neither lost nor do they come back
//
// A Devices is plain data, for one goroutine at a time when it is checked.
package chaos

import (
	"fmt"
	"slices"
	"sync"

	"github.com/hubbub-chat/hubbub/test/history"
)

// Message is one that a device sends another. N counts the messages from one to the
// other; a sender waits for an answer before it sends the next.
type Message struct {
	From, To string
	N        int
	Outcome  history.Outcome
}

// name is what a message carries.
func (m *Message) name() string { return fmt.Sprintf("%s>%s:%d", m.From, m.To, m.N) }

// Key is a one-time key that a device uploads.
type Key struct {
	Of, ID  string
	Outcome history.Outcome
}

// Claim is a one-time key that somebody asked for; Key is "" if none was given.
type Claim struct {
	Of, Key string
	Outcome history.Outcome
}

// Devices is what was seen of devices.
type Devices struct {
	mu       sync.Mutex
	Messages []*Message
	// Inboxes are the names of the messages that came, by device, in order.
	Inboxes map[string][]string
	Keys    []*Key
	Claims  []*Claim
	// Left are the numbers of keys that devices have in the end.
	Left map[string]int
}

// CheckDevices returns what broke the promises, each with the letter of its check.
func CheckDevices(d *Devices) []string {
	out := slices.Concat(d.messages(), d.keys())
	slices.Sort(out)
	return out
}

func (d *Devices) messages() (breaches []string) {
	breach := func(format string, args ...any) { breaches = append(breaches, fmt.Sprintf(format, args...)) }
	sent := make(map[string]*Message)
	for _, m := range d.Messages {
		sent[m.name()] = m
	}
	came := make(map[string]int)
	for to, inbox := range d.Inboxes {
		last := make(map[string]int)
		for _, name := range inbox {
			came[name]++
			m := sent[name]
			switch {
			case m == nil || m.To != to:
				breach("D2 %s got %s, which nobody sent it", to, name)
				continue
			case m.Outcome == history.Fail:
				breach("D2 %s got %s, which was refused", to, name)
			case came[name] > 1:
				breach("D1 %s got %s again", to, name)
			case m.N < last[m.From]:
				breach("D3 %s got %s after number %d", to, name, last[m.From])
			}
			last[m.From] = max(last[m.From], m.N)
		}
	}
	for _, m := range d.Messages {
		if m.Outcome == history.OK && came[m.name()] == 0 {
			breach("D1 %s was acknowledged and never came", m.name())
		}
	}
	return breaches
}

func (d *Devices) keys() (breaches []string) {
	breach := func(format string, args ...any) { breaches = append(breaches, fmt.Sprintf(format, args...)) }
	up := make(map[string]*Key)
	sure, all := make(map[string]int), make(map[string]int)
	for _, k := range d.Keys {
		up[k.Of+" "+k.ID] = k
		if k.Outcome == history.OK {
			sure[k.Of]++
		}
		all[k.Of]++
	}
	taken := make(map[string]bool)
	for _, c := range d.Claims {
		switch key := c.Of + " " + c.Key; {
		case c.Outcome == history.Unknown:
			sure[c.Of]-- // it may have been handed out, to nobody
		case c.Outcome != history.OK || c.Key == "":
		case taken[key]:
			breach("K1 %s was handed out twice", key)
		case up[key] == nil || up[key].Outcome == history.Fail:
			breach("K2 %s was handed out and never uploaded", key)
		default:
			taken[key] = true
			sure[c.Of]--
			all[c.Of]--
		}
	}
	for of, left := range d.Left {
		if left < sure[of] || left > all[of] {
			breach("K3 %s has %d keys left, and must have %d to %d", of, left, sure[of], all[of])
		}
	}
	return breaches
}
