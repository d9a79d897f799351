package ids

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	parsers := map[string]func(string) error{
		"user":  func(s string) error { _, err := ParseUserID(s); return err },
		"room":  func(s string) error { _, err := ParseRoomID(s); return err },
		"alias": func(s string) error { _, err := ParseRoomAlias(s); return err },
		"event": func(s string) error { _, err := ParseEventID(s); return err },
	}
	for _, test := range []struct {
		kind, id string
		ok       bool
	}{
		{"user", "@alice:example.org", true},
		{"user", "@alice:h", true},
		{"user", "@alice:example.org:8448", true},
		{"user", "@alice:192.0.2.1:1", true},
		{"user", "@alice:[2001:db8::1]:8448", true},
		{"user", "@:example.org", true}, // historical
		{"user", "@Ä b:example.org", true},
		{"user", "alice:example.org", false},
		{"user", "@alice", false},
		{"user", "@alice:", false},
		{"user", "@", false},
		{"user", "", false},
		{"user", "#alice:example.org", false},
		{"user", "@alice:dom$ain", false},
		{"user", "@alice:a b", false},
		{"user", "@alice:a/b", false},
		{"user", "@alice:a_b", false},
		{"user", "@alice:ä", false},
		{"user", "@a\x00:example.org", false},
		{"user", "@\xff:example.org", false},
		{"user", "@" + strings.Repeat("a", MaxLength-3) + ":h", true},
		{"user", "@" + strings.Repeat("a", MaxLength-2) + ":h", false},
		{"alias", "#room:example.org", true},
		{"alias", "#Räume & mehr:example.org", true},
		{"alias", "#room", false},
		{"alias", "#room:a!b", false},
		{"room", "!opaque", true},
		{"room", "!opaque:example.org", true},
		{"room", "!", false},
		{"room", "#room:example.org", false},
		{"event", "$hash", true},
		{"event", "hash", false},
	} {
		if err := parsers[test.kind](test.id); (err == nil) != test.ok {
			t.Errorf("%s %q: %v", test.kind, test.id, err)
		}
	}
}

// TestPartitionOf: every partition gets its share, and halving merges pairs.
func TestPartitionOf(t *testing.T) {
	const count = 64
	var used [count]bool
	for i := range 2000 {
		id := "@user" + strings.Repeat("x", i) + ":example.org"
		p := PartitionOf(id, count)
		if p >= count {
			t.Fatalf("partition %d of %d", p, count)
		}
		// Half as many partitions put together two at a time.
		if half := PartitionOf(id, count/2); half != p%(count/2) {
			t.Fatalf("%d of %d and %d of %d", p, count, half, count/2)
		}
		used[p] = true
	}
	for p, u := range used {
		if !u {
			t.Errorf("nobody in partition %d", p)
		}
	}
}
