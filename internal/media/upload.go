package media

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// maxAttach bounds how often an upload begins anew because the content it shared
// was removed meanwhile.
const maxAttach = 3

// Upload is what a user uploads.
type Upload struct {
	User ids.UserID
	// ID is a reserved ID, "" for a new one.
	ID ID
	// Type and Name are what the user says, "" for nothing.
	Type, Name string
	Body       io.Reader

	// dueTS is when it is removed, 0 for never.
	dueTS int64
}

// Create reserves an ID for content that comes later, until the time returned in ms
// since 1970. M_LIMIT_EXCEEDED if the user has too many.
// spec: client-server §POST /_matrix/media/v1/create.
func (s *Service) Create(ctx context.Context, user ids.UserID) (ID, int64, error) {
	id, due := NewID(), s.o.Clock.Now().Add(PendingTTL).UnixMilli()
	if _, err := s.o.Router.Do(ctx, &Reserve{ID: id, User: user, DueTS: due}); err != nil {
		return "", 0, fmt.Errorf("reserve media: %w", err)
	}
	return id, due, nil
}

// Upload stores content and returns its ID. Errors for the client: M_TOO_LARGE,
// and those of Claim for a reserved ID.
func (s *Service) Upload(ctx context.Context, u Upload) (ID, error) {
	m := Media{User: u.User, Name: CleanName(u.Name), DueTS: u.dueTS}
	id := u.ID
	if id == "" {
		id = NewID()
	} else {
		m.Claim = rand.Text()
		if _, err := s.o.Router.Do(ctx, &Claim{ID: id, User: u.User, Claim: m.Claim}); err != nil {
			return "", fmt.Errorf("claim media: %w", err)
		}
	}
	err := s.fill(ctx, id, m, u)
	if err != nil {
		s.release(ctx, id, m)
		return "", err
	}
	_ = s.o.Bus.Publish(subject(id), bus.Raw{}) // a hint; who waits looks for itself too
	return id, nil
}

// release lets others fill a reserved ID after an upload that failed. If that
// fails too, the claim ends by itself.
func (s *Service) release(ctx context.Context, id ID, m Media) {
	if m.Claim == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := s.o.Router.Do(ctx, &Claim{ID: id, User: m.User, Claim: m.Claim, Release: true}); err != nil {
		s.o.Log.Warn("a claim on media was not released", "error", err)
	}
}

// releaseTimeout bounds what is done for a client that may be gone.
const releaseTimeout = 10 * time.Second

func (s *Service) fill(ctx context.Context, id ID, m Media, u Upload) error {
	sp, err := s.receive(u.Body)
	if err != nil {
		return err
	}
	defer func() { sp.close() }()
	head, err := sp.head()
	if err != nil {
		return err
	}
	if clean, err := s.withoutPlace(sp, head); err != nil {
		return err
	} else if clean != nil {
		sp.close()
		sp = clean
	}
	m.Type = contentType(u.Type, head)
	m.Hash, m.Size = sp.hash, sp.size
	return s.attach(ctx, id, m, sp)
}

// attach stores the content of a spool, unless it is stored, and makes it show
// under the ID.
func (s *Service) attach(ctx context.Context, id ID, m Media, sp *spool) error {
	for range maxAttach {
		cmd := &Attach{ID: id, Media: m}
		known, err := one[Content](ctx, s.o.Store, keys(s.o.Partitions).content(m.Hash))
		if err != nil {
			return err
		}
		if known == nil || known.Key == "" {
			if cmd.Key, cmd.PlanTS, err = s.store(ctx, m.Hash, sp); err != nil {
				return err
			}
		}
		done, err := partition.Do[Attached](ctx, s.o.Router, cmd)
		if err != nil {
			return fmt.Errorf("attach media: %w", err)
		}
		if done.Gone {
			continue // the last other reference went in between
		}
		s.attached(ctx, cmd, done)
		return s.mine(ctx, id, m)
	}
	return merr.UnavailableErr(time.Second, "The upload met a removal, try again")
}

// mine reports whether a reserved ID has the content of this upload.
func (s *Service) mine(ctx context.Context, id ID, m Media) error {
	if m.Claim == "" {
		return nil
	}
	got, err := one[Media](ctx, s.o.Store, keys(s.o.Partitions).media(id))
	if err == nil && (got == nil || got.Hash != m.Hash) {
		err = merr.New(http.StatusConflict, merr.CannotOverwriteMedia, "This media ID has its content already")
	}
	return err
}

// attached counts an upload, and removes bytes that were stored for nothing.
func (s *Service) attached(ctx context.Context, cmd *Attach, done Attached) {
	s.metrics.bytes.Add(float64(cmd.Media.Size))
	if cmd.Key != "" && !done.Shared {
		s.metrics.uploads.WithLabelValues("new").Inc()
		return
	}
	s.metrics.uploads.WithLabelValues("known").Inc()
	if cmd.Key == "" {
		return
	}
	// Two uploads of the same content at the same time. If this fails, the sweep
	// does it.
	p := s.partition(cmd.Media.Hash)
	if err := s.o.Blobs.Delete(ctx, cmd.Key); err == nil {
		_, _ = s.o.Router.Do(ctx, &Forget{At: p, Sorts: []string{dueKey(p, cmd.PlanTS, dueBytes, cmd.Key).Sort}})
	}
}

// store puts the bytes of a spool into the blob store, under a plan.
func (s *Service) store(ctx context.Context, hash string, sp *spool) (key string, planTS int64, err error) {
	key, planTS = blobKey(hash), s.o.Clock.Now().Add(uploadTTL).UnixMilli()
	if _, err := s.o.Router.Do(ctx, &Plan{Hash: hash, Key: key, DueTS: planTS}); err != nil {
		return "", 0, fmt.Errorf("plan media: %w", err)
	}
	if _, err := sp.Seek(0, io.SeekStart); err != nil {
		return "", 0, fmt.Errorf("rewind upload: %w", err)
	}
	if err := s.o.Blobs.Put(ctx, key, sp.File, sp.size); err != nil {
		return "", 0, fmt.Errorf("store media: %w", refusal(err))
	}
	return key, planTS, nil
}

// spool is a file without a name that holds an upload.
type spool struct {
	*os.File
	size int64
	hash string
}

func (sp *spool) close() { _ = sp.File.Close() }

// head returns what a type is recognised by.
func (sp *spool) head() ([]byte, error) {
	b := make([]byte, sniffBytes)
	n, err := sp.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read upload: %w", err)
	}
	return b[:n], nil
}

// newSpool fills a spool with what write writes.
func (s *Service) newSpool(write func(io.Writer) error) (*spool, error) {
	f, err := os.CreateTemp(s.o.Spool, "")
	if err != nil {
		return nil, refusal(fmt.Errorf("spool: %w", err))
	}
	sp := &spool{File: f}
	// Where an open file cannot be removed, the next start does.
	_ = os.Remove(f.Name())
	sum := sha256.New()
	counted := &counter{w: io.MultiWriter(f, sum)}
	if err := write(counted); err != nil {
		sp.close()
		return nil, refusal(err)
	}
	sp.size, sp.hash = counted.n, hashText(sum.Sum(nil))
	return sp, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// receive spools a body of at most MaxUpload bytes.
func (s *Service) receive(body io.Reader) (*spool, error) {
	return s.newSpool(func(w io.Writer) error {
		n, err := io.Copy(w, io.LimitReader(sender{body}, s.o.MaxUpload+1))
		if err == nil && n > s.o.MaxUpload {
			err = merr.TooLargeErr("The upload is larger than %d bytes", s.o.MaxUpload)
		}
		return err
	})
}

// sender tells errors of the sender from those of the disk.
type sender struct{ r io.Reader }

func (s sender) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil, err == io.EOF:
		return n, err
	case errors.As(err, &tooLarge):
		return n, merr.TooLargeErr("The upload is larger than %d bytes", tooLarge.Limit).Because(err)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, merr.New(http.StatusRequestTimeout, merr.Unknown, "The body came too slowly").Because(err)
	}
	return n, merr.New(http.StatusBadRequest, merr.Unknown, "The body could not be read").Because(err)
}

// awayRetry is what a client is told to wait while the store of media is away.
const awayRetry = 5 * time.Second

// refusal makes an error of a full disk, or of a store that is away, one that says so.
func refusal(err error) error {
	if errors.Is(err, blob.ErrAway) {
		return merr.UnavailableErr(awayRetry, "The store of media does not answer, try again").Because(err)
	}
	if errors.Is(err, blob.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return merr.New(http.StatusInsufficientStorage, merr.Unknown, "There is no room for the upload").Because(err)
	}
	return err
}

// CleanName makes a file name safe to be kept and shown: the last part of a path,
// valid text without control characters, cut at maxName bytes.
func CleanName(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		// The marks of direction make "gpj.exe" of "exe.jpg".
		if r < ' ' || r == 0x7f || r == utf8.RuneError || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return -1
		}
		return r
	}, name)
	for len(name) > maxName {
		_, size := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-size]
	}
	if name == "." || name == ".." {
		return ""
	}
	return name
}
