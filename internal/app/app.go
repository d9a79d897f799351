// Package app wires the parts of the server together. It is the only package
// that knows them all.
package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

// Server is one process of a deployment.
type Server struct {
	metrics *obs.Server
	log     *slog.Logger
}

// New opens what the server needs. Run ends it.
func New(ctx context.Context, cfg config.Config, log *slog.Logger) (*Server, error) {
	s := &Server{log: log}
	if cfg.Server.MetricsListen != "" {
		m, err := obs.Listen(ctx, obs.ServerOptions{
			Addr: cfg.Server.MetricsListen, Registry: obs.NewRegistry(), Pprof: cfg.Server.Pprof, Log: log,
		})
		if err != nil {
			return nil, fmt.Errorf("start: %w", err)
		}
		s.metrics = m
	}
	return s, nil
}

// Run serves until the context ends, then stops.
func (s *Server) Run(ctx context.Context) error {
	<-ctx.Done()
	if s.metrics == nil {
		return nil
	}
	if err := s.metrics.Close(); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// Fsck checks a store offline and writes what it finds to out.
func Fsck(_ context.Context, cfg config.Config, _ io.Writer) error {
	return fmt.Errorf("check %s: there is no store to check yet", cfg.Server.DataDir)
}
