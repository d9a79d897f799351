package media

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/merr"
)

// File is content that is open for reading.
type File struct {
	blob.Object
	// Type is its content type, Name its file name or "".
	Type, Name string
	// Tag names these very bytes.
	Tag string
}

// Open opens the content of media. For content that is not uploaded yet it waits up
// to wait, then gives M_NOT_YET_UPLOADED. M_NOT_FOUND if there is no such media, or
// it is quarantined.
func (s *Service) Open(ctx context.Context, id ID, wait time.Duration) (*File, error) {
	m, c, err := s.await(ctx, id, wait)
	if err != nil {
		return nil, err
	}
	o, err := s.o.Blobs.Open(ctx, c.Key)
	if err != nil {
		return nil, fmt.Errorf("open media %s: %w", id, s.vanished(ctx, id, refusal(err)))
	}
	return &File{Object: o, Type: m.Type, Name: m.Name, Tag: m.Hash[:tagChars]}, nil
}

// tagChars of a hash make an entity tag: 128 bits.
const tagChars = 32

// vanished tells bytes that were removed since their row was read from bytes that
// are lost.
func (s *Service) vanished(ctx context.Context, id ID, err error) error {
	if _, _, gone := s.find(ctx, id); gone != nil {
		return gone
	}
	return err
}

// find returns media and its content. The content is nil if it is awaited.
// M_NOT_FOUND if there is no such media, or it is quarantined.
func (s *Service) find(ctx context.Context, id ID) (*Media, *Content, error) {
	k := keys(s.o.Partitions)
	m, err := one[Media](ctx, s.o.Store, k.media(id))
	if err != nil {
		return nil, nil, err
	}
	if m == nil || m.DueTS != 0 && m.DueTS <= s.now() {
		return nil, nil, errNotFound()
	}
	m.ID = id
	if m.Hash == "" {
		return m, nil, nil
	}
	c, err := one[Content](ctx, s.o.Store, k.content(m.Hash))
	if err != nil {
		return nil, nil, err
	}
	if c == nil || c.Key == "" || c.Quarantined != nil {
		return nil, nil, errNotFound()
	}
	return m, c, nil
}

func subject(id ID) string { return "media." + string(id) }

// await is find that waits for the content.
func (s *Service) await(ctx context.Context, id ID, wait time.Duration) (*Media, *Content, error) {
	m, c, err := s.find(ctx, id)
	if err != nil || c != nil {
		return m, c, err
	}
	came := make(chan struct{}, 1)
	sub, err := s.o.Bus.Subscribe(subject(id), func(bus.Payload) {
		select {
		case came <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, nil, fmt.Errorf("await media: %w", err)
	}
	defer sub.Close()
	end := time.NewTimer(min(wait, MaxWait))
	defer end.Stop()
	again := time.NewTicker(recheck)
	defer again.Stop()
	for {
		// Looked at after the subscription began: nothing is missed in between.
		if m, c, err = s.find(ctx, id); err != nil || c != nil {
			return m, c, err
		}
		select {
		case <-came:
		case <-again.C:
		case <-end.C:
			return nil, nil, merr.New(http.StatusGatewayTimeout, merr.NotYetUploaded, "The content has not been uploaded yet")
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("await media: %w", ctx.Err())
		}
	}
}
