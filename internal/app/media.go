package app

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/blob/fileblob"
	"github.com/hubbub-chat/hubbub/internal/blob/s3blob"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/media"
)

// The places of media in the data directory: files, unless they are in a bucket, and
// uploads on their way.
const (
	mediaDir = "media"
	spoolDir = "spool"
)

// openMedia opens the blob store and starts the service of media.
func (s *Server) openMedia(ctx context.Context) (err error) {
	if s.blobs, err = openBlobs(ctx, &s.cfg); err != nil {
		return err
	}
	s.media, err = media.New(media.Options{
		Server: s.cfg.Server.Name, Router: s.node, Store: s.store, Partitions: s.store.partitions, Bus: s.bus.Bus,
		Blobs: s.blobs, Spool: filepath.Join(s.cfg.Server.DataDir, spoolDir),
		Clock: s.clock(), Log: s.log, Metrics: s.registry,
		MaxUpload: s.cfg.Media.MaxUploadBytes, PreviewAllow: s.cfg.Limits.PreviewAllow,
	})
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	return nil
}

func openBlobs(ctx context.Context, cfg *config.Config) (blob.Store, error) {
	if cfg.Media.Store == config.MediaFiles {
		files, err := fileblob.Open(filepath.Join(cfg.Server.DataDir, mediaDir))
		if err != nil {
			return nil, err // not a nil *Store, which is a store to whoever closes it
		}
		return files, nil
	}
	o, err := s3blob.Parse(cfg.Media.Store)
	if err != nil {
		return nil, err
	}
	o.AccessKey, o.SecretKey = cfg.Media.StoreAccessKey.Reveal(), cfg.Media.StoreSecretKey.Reveal()
	s3, err := s3blob.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	return s3, nil
}

// closeMedia ends what the service of media does, and then its store.
func (s *Server) closeMedia() error {
	if s.media != nil {
		s.media.Close()
	}
	if s.blobs == nil {
		return nil
	}
	return s.blobs.Close()
}
