// Package app wires the parts of the server together. It is the only package
// that knows them all.
//
// Starting goes from the inside out: store, bus, partitions, feed, API, sockets,
// listeners. Stopping goes the other way, so that nothing is asked for what is
// already gone.
package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/blob"
	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/damage"
	"github.com/hubbub-chat/hubbub/internal/delayed"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/gateway"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/mailer"
	"github.com/hubbub-chat/hubbub/internal/media"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/purge"
	"github.com/hubbub-chat/hubbub/internal/push"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/search"
)

// Server is one process of a deployment.
type Server struct {
	cfg config.Config
	log *slog.Logger

	registry *obs.Registry
	metrics  *obs.Server
	store    *openedStore
	bus      nodeBus
	node     *cluster.Node
	// consumers follow the logs of the partitions that the node owns.
	consumers *consumer.Set
	search    *search.Index
	hub       *feed.Hub
	tokens    *session.Authenticator
	mailer    *mailer.Mailer
	delayed   *delayed.Service
	purges    *purge.Service
	api       *api.Dispatcher
	table     []api.Route
	gateway   *gateway.Gateway
	services  services
	blobs     blob.Store
	media     *media.Service
	push      *push.Service

	edge
	// requests ends when the server stops: long polls return.
	requests context.Context
	endPolls context.CancelFunc
}

// edge is where clients come in.
type edge struct {
	http      *http.Server
	listeners []net.Listener
	// lot is where the connections of long polls wait.
	lot *parking.Lot
}

// New opens what the server needs and binds its listeners. Run serves and ends
// it; Close ends one that was never run.
func New(ctx context.Context, cfg config.Config, log *slog.Logger) (s *Server, err error) {
	s = &Server{cfg: cfg, log: log, registry: obs.NewRegistry()}
	s.requests, s.endPolls = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			err = fmt.Errorf("start: %w", errors.Join(err, s.Close()))
		}
	}()
	if err = s.loadServices(); err != nil {
		return s, err
	}
	if s.store, err = openServed(ctx, cfg, s.registry, log); err != nil {
		return s, err
	}
	s.store.damage = damage.New(s.registry, log)
	s.store.serveBackups(ctx, cfg, log)
	s.bus.id = ids.NodeID(rand.Text())
	if err = s.openBus(ctx); err != nil {
		return s, err
	}
	if err = s.openCore(ctx); err != nil {
		return s, err
	}
	if err = s.startServices(ctx); err != nil {
		return s, err
	}
	if err = s.openPush(ctx); err != nil {
		return s, err
	}
	if err = s.openMedia(ctx); err != nil {
		return s, err
	}
	if err = s.openSearch(); err != nil {
		return s, err
	}
	for _, addr := range s.clientAddrs() {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return s, err
		}
		s.listeners = append(s.listeners, l)
	}
	if err = s.openEdge(); err != nil {
		return s, err
	}
	if err = s.hearEnded(); err != nil {
		return s, err
	}
	if cfg.Server.MetricsListen != "" {
		s.metrics, err = obs.Listen(ctx, obs.ServerOptions{
			Addr: cfg.Server.MetricsListen, Registry: s.registry, Pprof: cfg.Server.Pprof, Log: log, Checks: s.checks(),
		})
	}
	return s, err
}

var errStopping = errors.New("the server is stopping")

func (s *Server) checks() []obs.Check {
	return []obs.Check{
		{Name: "store", Ready: s.store.ready},
		{Name: "serving", Ready: func(context.Context) error {
			if s.bus.stopping.Load() {
				return errStopping
			}
			return nil
		}},
		{Name: "node", Ready: func(context.Context) error { return s.node.Ready() }},
	}
}

// clientAddrs are where clients are answered: nowhere by a node without that role.
func (s *Server) clientAddrs() []string {
	if !s.cfg.Server.HasRole(config.RoleEdge) {
		return nil
	}
	return s.cfg.Server.Listen
}

// Addr is the first address the server answers clients on, nil if there is none.
func (s *Server) Addr() net.Addr {
	if len(s.listeners) == 0 {
		return nil
	}
	return s.listeners[0].Addr()
}

// URL is where clients reach the server, "" if they do not reach this node.
func (s *Server) URL() string {
	if s.cfg.Server.PublicBaseURL != "" {
		return s.cfg.Server.PublicBaseURL
	}
	if s.Addr() == nil {
		return ""
	}
	return (&url.URL{Scheme: "http", Host: s.Addr().String()}).String()
}

// Run serves until the context ends or the store fails, then stops.
func (s *Server) Run(ctx context.Context) error {
	served := make(chan error, len(s.listeners))
	var wg sync.WaitGroup
	for _, l := range s.listeners {
		wg.Go(func() { served <- s.http.Serve(l) })
	}
	wg.Go(func() { _ = s.http.Serve(s.lot) }) // ends with the others
	limitMemory(os.DirFS("/"), s.log)
	wg.Go(func() { tendMemory(s.requests) })
	s.log.Info("listening", "url", s.URL(), "server_name", s.cfg.Server.Name)
	var err error
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "grace", s.cfg.Server.ShutdownGrace())
		s.drain()
	case <-s.store.failed:
		err = s.store.err()
	case err = <-served:
		err = fmt.Errorf("serve: %w", err)
	}
	err = errors.Join(err, s.Close())
	wg.Wait()
	return err
}

// Close stops in the order that lets everyone finish: sockets are told to go
// elsewhere, requests under way are answered, then the core hands over.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Server.ShutdownGrace())
	defer cancel()
	s.bus.stopping.Store(true)
	s.endPolls()
	var errs []error
	var wg sync.WaitGroup
	if s.gateway != nil {
		wg.Go(func() {
			if err := s.gateway.Shutdown(ctx); err != nil {
				s.log.Warn("sockets were cut off", "error", err)
			}
		})
	}
	if s.http != nil {
		// Back to the server, which answers them and waits for that.
		if err := s.lot.Drain(ctx); err != nil {
			s.log.Warn("polls were cut off", "error", err)
		}
		if err := s.http.Shutdown(ctx); err != nil {
			s.log.Warn("requests were cut off", "error", err)
			errs = append(errs, s.http.Close())
		}
	}
	wg.Wait()
	if s.lot != nil {
		_ = s.lot.Close()
	}
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.delayed != nil {
		s.delayed.Close()
	}
	if s.purges != nil {
		s.purges.Close()
	}
	s.services.close()
	if s.tokens != nil {
		s.tokens.Close()
	}
	if s.mailer != nil {
		s.mailer.Close(ctx)
	}
	if s.consumers != nil {
		s.consumers.Close()
	}
	if s.push != nil {
		s.push.Close()
	}
	if s.hub != nil {
		s.hub.Close()
	}
	errs = append(errs, s.closeMedia())
	if s.node != nil {
		s.node.Close()
	}
	if s.bus.Bus != nil {
		errs = append(errs, s.bus.Close())
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.metrics != nil {
		errs = append(errs, s.metrics.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) accounts() *account.Reader {
	return account.NewReader(s.store, s.store.partitions).Tolerant(s.store.damage)
}

func (s *Server) rooms() *room.Reader {
	return s.expiredToo().WithRetention(s.retention(), s.clock())
}

// expiredToo reads rooms with what has expired and is not removed yet.
func (s *Server) expiredToo() *room.Reader {
	return room.NewReader(s.store, s.store.partitions).Tolerant(s.store.damage)
}

func (s *Server) clock() clock.Clock { return clock.Real{} }

// Announce writes where the server is, and the sign-up link of the first
// administrator while there is no account, to out.
func (s *Server) Announce(ctx context.Context, out io.Writer) error {
	if s.Addr() == nil {
		_, err := fmt.Fprintf(out, "hubbub runs as %v and answers no clients\n", s.cfg.Server.Roles)
		return err
	}
	if _, err := fmt.Fprintf(out, "hubbub is at %s\n", s.URL()); err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	if s.cfg.Server.TestMode {
		_, err := fmt.Fprintln(out, "TEST MODE: anyone can register, weak passwords pass, nothing is limited. Never use it with real people.")
		if err != nil {
			return fmt.Errorf("announce: %w", err)
		}
	}
	token, err := s.firstAdminToken(ctx)
	if err != nil || token == "" {
		return err
	}
	_, err = fmt.Fprintf(out, "The first administrator signs up at %s/#/signup?token=%s\n", s.URL(), token)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	return nil
}

// shutdownSpread is how long closing all sockets is spread over: most of the
// grace, so that the last ones still close cleanly.
func (s *Server) shutdownSpread() time.Duration {
	if s.cfg.Clustered() {
		return s.cfg.Cluster.Drain()
	}
	return min(gateway.DefaultDrainSpread, s.cfg.Server.ShutdownGrace()/2)
}
