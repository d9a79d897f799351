// Package damage is where readers of the store tell of rows that they cannot read:
// bytes that are no row, or the row of another place. A reader leaves such a row out
// and serves the rest; a Log says once which row it was, and counts.
//
// A Log says where a row stands and why it cannot be read, never what is in it. Its
// methods are safe for concurrent use, and do nothing on a nil Log. They are called
// for damaged rows only, so what they cost does not matter.
package damage

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// maxTold bounds how many rows are remembered as told of: a disk that rots has more,
// and the log has then said enough. What is behind it is only counted.
const maxTold = 1000

// Log tells of damaged rows.
type Log struct {
	log   *slog.Logger
	reads *prometheus.CounterVec

	mu struct {
		sync.Mutex
		told map[storage.Key]struct{}
	}
}

// New returns a Log that writes to log and counts in reg.
func New(reg prometheus.Registerer, log *slog.Logger) *Log {
	l := &Log{log: log, reads: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hubbub", Subsystem: "store", Name: "damaged_reads_total",
		Help: "Reads of a row that cannot be read, and was left out or served from its copy.",
	}, []string{"kind"})}
	for _, kind := range append(kinds[:], other) {
		l.reads.WithLabelValues(kind.name) // shown at zero, or Prometheus does not see the first count
	}
	reg.MustRegister(l.reads)
	l.mu.told = make(map[storage.Key]struct{})
	return l
}

// kind is a table whose rows are counted apart; seq: its sort keys end in a position.
type kind struct {
	table storage.Table
	name  string
	seq   bool
}

var (
	kinds = [...]kind{
		{tables.Timeline, "event", true},
		{tables.State, "state", false},
		{tables.Receipt, "receipt", false},
		{tables.RoomHead, "room", false},
		{tables.Relation, "relation", true},
		{tables.RelationCount, "relation_count", true},
		{tables.AccountData, "account_data", false},
		{tables.Membership, "membership", false},
		{tables.Stream, "change", true},
		{tables.Inbox, "to_device", true},
	}
	other = kind{name: "other"}
)

func kindOf(t storage.Table) kind {
	for _, k := range kinds {
		if k.table == t {
			return k
		}
	}
	return other
}

// Row tells of a row that cannot be read because of cause, whose text holds nothing of
// the row.
func (l *Log) Row(k storage.Key, cause error) {
	if l == nil {
		return
	}
	kind := kindOf(k.Table)
	l.reads.WithLabelValues(kind.name).Inc()
	if !l.first(k) {
		return
	}
	attrs := []slog.Attr{
		slog.String("kind", kind.name), slog.Int("table", int(k.Table)), slog.Int("partition", int(k.Partition)), slog.Any("error", cause),
	}
	switch {
	case strings.HasPrefix(k.Entity, "@"):
		attrs = append(attrs, slog.String("user", k.Entity))
	case k.Entity != "":
		attrs = append(attrs, slog.String("room", k.Entity))
	}
	switch {
	case kind.seq:
		attrs = append(attrs, slog.Uint64("seq", uint64(tables.SortSeq(k.Sort))))
	case k.Table == tables.State: // its key may say more than has to be in a log
		typ, _, _ := strings.Cut(k.Sort, "\x00")
		attrs = append(attrs, slog.String("type", typ))
	}
	l.log.LogAttrs(context.Background(), slog.LevelError, "a row of the store cannot be read", attrs...)
}

// first reports whether a row was not told of before.
func (l *Log) first(k storage.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, told := l.mu.told[k]; told || len(l.mu.told) >= maxTold {
		return false
	}
	l.mu.told[k] = struct{}{}
	return true
}
