// Package media keeps what users upload: images, files, and pictures of pages
// that links lead to.
//
// # Steps of an upload
//
//  1. The body goes to a file without a name on the local disk, hashed on its way:
//     memory stays flat whatever the size, and a client that goes away leaves
//     nothing.
//  2. Pictures and videos that say where they were taken are freed of it (strip.go,
//     boxes.go).
//  3. Content that is stored already is not stored again. Otherwise a row says
//     that the bytes under a new key are to be removed a day later, then the bytes
//     go to the blob store.
//  4. One command in the partition of the content's hash counts the reference and
//     takes the removal back; its effects write the media's row and the user's list.
//
// # Invariants
//
//   - A media's row names content that has a row, whose bytes are in the blob store.
//   - Content has as many ContentRef rows as Refs says. When the last one goes, the
//     same commit removes the row and says that the bytes are to be removed.
//   - A key of the blob store is used once: bytes stored anew get another, so that
//     removing twice, or late, removes nothing that is in use.
//   - A crash at any point leaves bytes that a MediaDue row names, never a row
//     without bytes.
//
// Whoever has an account and knows a media ID may read it: an ID is 130 random
// bits and is told to whoever sees the event with it, as spec: client-server
// §Content Repository has it. There is no link between media and rooms.
//
// Rejected: counting references by scanning events (media is used in profiles, in
// encrypted events, and by URL); removing bytes when a row goes, without a row that
// says so (a crash between the two leaves them for ever).
//
// All methods of Service may be called from any goroutine.
package media

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/storage"
)

const (
	// MaxPending is how many reserved media IDs of one user may wait for their
	// content. A bridge that copies a history reserves some at a time.
	MaxPending = 50
	// PendingTTL is how long a reserved media ID waits for its content.
	// spec: client-server §POST /_matrix/media/v1/create, 24 hours recommended.
	PendingTTL = 24 * time.Hour
	// MaxWait is the longest that a download waits for content that is not there
	// yet. spec: client-server §GET /media/download, timeout_ms.
	MaxWait = time.Minute
	// uploadTTL is how long an upload may take until its bytes count as left
	// behind: much more than a request may last.
	uploadTTL = 24 * time.Hour
	// claimTTL is how long an upload keeps others from filling the same media ID,
	// if it does not end properly: what a request may last.
	claimTTL = time.Hour + time.Minute
	// recheck is how often a waiting download looks for itself: the bus may lose.
	recheck = 5 * time.Second
	// sweepEvery is how often it is looked for what is due.
	sweepEvery = time.Minute
	// maxName and maxType bound what is stored with media, in bytes: file systems
	// take 255, and no media type is longer.
	maxName, maxType = 255, 255
)

// ID is the local part of an mxc URI: what names media on its server.
type ID string

// NewID returns an ID that cannot be guessed.
func NewID() ID { return ID(rand.Text()) }

// ParseID checks the form of an ID: letters, digits, '-' and '_'.
// spec: client-server §Security considerations (content repository).
func ParseID(s string) (ID, bool) {
	if s == "" || len(s) > ids.MaxLength {
		return "", false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' {
			return "", false
		}
	}
	return ID(s), true
}

// Options are what a Service stands on.
type Options struct {
	// Server is the server name: the authority of mxc URIs.
	Server string
	// Router, Store and Partitions are the deployment's.
	Router     partition.Router
	Store      storage.Store
	Partitions int
	Bus        bus.Bus
	Blobs      blob.Store
	// Spool is a directory on the local disk for bytes on their way. What is in it
	// is removed at the start.
	Spool string
	Clock clock.Clock
	Log   *slog.Logger
	// Metrics, if not nil, takes the metrics of the service.
	Metrics prometheus.Registerer

	// MaxUpload is the most bytes of one upload.
	MaxUpload int64
	// PreviewAllow are networks that previews may be fetched from although they
	// are private or local.
	PreviewAllow []netip.Prefix
	// Resolver, if not nil, resolves the host names of previews.
	Resolver *net.Resolver
}

// Service is the media of a deployment, as one node serves it.
type Service struct {
	o       Options
	metrics *metrics
	// decoding holds the memory that pictures may take at once, thumbnails the
	// thumbnails being made.
	decoding   *semaphore.Weighted
	thumbnails singleflight.Group
	// patience bounds the making of a thumbnail.
	patience  time.Duration
	previewer *previewer

	stop    context.CancelFunc
	running sync.WaitGroup
}

// New returns a service and starts what removes media that is due. Close ends it.
func New(o Options) (*Service, error) {
	if err := os.RemoveAll(o.Spool); err != nil {
		return nil, fmt.Errorf("media: clear spool: %w", err)
	}
	if err := os.MkdirAll(o.Spool, 0o700); err != nil {
		return nil, fmt.Errorf("media: make spool: %w", err)
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("media: register metrics: %w", err)
	}
	s := &Service{o: o, metrics: m, decoding: semaphore.NewWeighted(decodeBytes), patience: thumbnailTimeout}
	s.previewer = newPreviewer(s)
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.running.Go(func() { s.sweepLoop(ctx) })
	return s, nil
}

// Close waits for what runs in the background. The blob store stays open.
func (s *Service) Close() {
	s.stop()
	s.running.Wait()
	s.previewer.close()
}

// URI returns the mxc URI of media. spec: client-server §Matrix Content (mxc://) URIs.
func (s *Service) URI(id ID) string { return "mxc://" + s.o.Server + "/" + string(id) }

// MaxUpload is the most bytes of one upload.
func (s *Service) MaxUpload() int64 { return s.o.MaxUpload }

func (s *Service) now() int64 { return s.o.Clock.Now().UnixMilli() }

func (s *Service) partition(entity string) ids.Partition {
	return ids.PartitionOf(entity, s.o.Partitions)
}

// metrics counts what the service does.
type metrics struct {
	uploads    *prometheus.CounterVec
	bytes      prometheus.Counter
	thumbnails *prometheus.CounterVec
	previews   *prometheus.CounterVec
	removed    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	name := func(n, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "hubbub", Subsystem: "media", Name: n, Help: help}
	}
	m := &metrics{
		uploads:    prometheus.NewCounterVec(name("uploads_total", "Uploads, by whether their content was there already."), []string{"content"}),
		bytes:      prometheus.NewCounter(name("upload_bytes_total", "Bytes uploaded, whether stored or not.")),
		thumbnails: prometheus.NewCounterVec(name("thumbnails_total", "Thumbnails asked for, by outcome."), []string{"outcome"}),
		previews:   prometheus.NewCounterVec(name("previews_total", "Previews asked for, by outcome."), []string{"outcome"}),
		removed:    prometheus.NewCounter(name("removed_total", "Contents removed from the blob store.")),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.uploads, m.bytes, m.thumbnails, m.previews, m.removed} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
