package search

import (
	"crypto/rand"
	"hash/maphash"
	"sync"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

// maxKnown is how many words of rooms are remembered, those of rooms where nobody says
// anything any more first forgotten. Each takes some 20 bytes: 20 MB, where so much is said.
const maxKnown = 1 << 20

// removalsSort is the sort of the SearchWord row that tells when words of a room
// were last removed: it has no letters where the rows that list words have two.
const removalsSort = "\x00\x00"

// removals identifies the last removal of words from a room; "" is none.
type removals string

func newRemovals() removals {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return removals(b[:])
}

// known remembers which words the index of a room has, so that it need not be asked
// for each word that is said again, which is nearly every one. What it knows of a
// room holds as long as the room's row of removals is the same, whoever removed words
// and on whichever node.
type known struct {
	seed maphash.Seed
	max  int // words

	mu struct {
		sync.Mutex
		// Rooms that are used move from old to young. When young has half of the
		// words, it becomes old, and what was old is forgotten.
		young, old map[ids.RoomID]*roomWords
		words      int // in young
	}
}

type roomWords struct {
	removals removals
	// all: the room had no words before these. Should there be more after all, since
	// another node indexed the room for a while, some are written twice, which does no harm.
	all   bool
	words map[uint64]struct{} // hashes: one in 10^13 pairs is taken for one word
}

func newKnown(limit int) *known {
	k := &known{seed: maphash.MakeSeed(), max: limit}
	k.mu.young, k.mu.old = make(map[ids.RoomID]*roomWords), make(map[ids.RoomID]*roomWords)
	return k
}

// room returns what is known of a room, nil if nothing.
func (k *known) room(id ids.RoomID) *roomWords {
	if r := k.mu.young[id]; r != nil {
		return r
	}
	r := k.mu.old[id]
	if r == nil {
		return nil
	}
	delete(k.mu.old, id)
	k.mu.young[id] = r
	k.grown(len(r.words))
	return r
}

func (k *known) grown(n int) {
	if k.mu.words += n; k.mu.words > k.max/2 {
		k.mu.old, k.mu.young, k.mu.words = k.mu.young, make(map[ids.RoomID]*roomWords), 0
	}
}

// unknown returns those of the words of a room that are not known, and for which
// removals that is so. There is an answer only of a room of which something is known; all
// tells that the words are those that the room lacks.
func (k *known) unknown(id ids.RoomID, words []string) (out []string, last removals, all, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.room(id)
	if r == nil {
		return nil, "", false, false
	}
	for _, w := range words {
		if _, ok := r.words[maphash.String(k.seed, w)]; !ok {
			out = append(out, w)
		}
	}
	return out, r.removals, r.all, true
}

// learned are words that a room has since its last removals; all says that it had none
// before, if nothing is known of it yet.
type learned struct {
	removals removals
	words    []string
	all      bool
}

func (k *known) learn(id ids.RoomID, l learned) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.room(id)
	if r == nil || r.removals != l.removals {
		all := r == nil && l.all
		k.forgetLocked(id)
		r = &roomWords{removals: l.removals, all: all, words: make(map[uint64]struct{}, len(l.words))}
		k.mu.young[id] = r
	}
	before := len(r.words)
	for _, w := range l.words {
		r.words[maphash.String(k.seed, w)] = struct{}{}
	}
	k.grown(len(r.words) - before)
}

func (k *known) forgetLocked(id ids.RoomID) {
	if r := k.mu.young[id]; r != nil {
		k.mu.words -= len(r.words)
		delete(k.mu.young, id)
	}
	delete(k.mu.old, id)
}
