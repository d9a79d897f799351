package app

import (
	"context"
	"fmt"
	"maps"
	"net"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/discovery"
	"github.com/hubbub-chat/hubbub/internal/api/e2ee"
	mediaapi "github.com/hubbub-chat/hubbub/internal/api/media"
	"github.com/hubbub-chat/hubbub/internal/api/parking"
	"github.com/hubbub-chat/hubbub/internal/api/rooms"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/api/syncing"
	"github.com/hubbub-chat/hubbub/internal/api/userdata"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/delayed"
	"github.com/hubbub-chat/hubbub/internal/farewell"
	"github.com/hubbub-chat/hubbub/internal/feed"
	"github.com/hubbub-chat/hubbub/internal/gateway"
	"github.com/hubbub-chat/hubbub/internal/media"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/purge"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
	"github.com/hubbub-chat/hubbub/internal/report"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/search"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/web"
)

// rowCacheBytes bounds the rows that all partitions keep in memory together: the
// heads, power levels and members of the rooms in use.
const rowCacheBytes = 128 << 20

// closeTokenRevoked is the close code of a socket whose token was revoked.
// docs/websocket.md §Close codes.
const closeTokenRevoked = 4401

// merge joins maps whose keys differ.
func merge[M ~map[K]V, K comparable, V any](parts ...M) M {
	out := make(M)
	for _, m := range parts {
		maps.Copy(out, m)
	}
	return out
}

// pinned are the rows that commands pin.
func pinned() map[storage.Table]partition.TableSpec {
	return merge(room.Tables(), account.Tables(), partition.Tables(), delayed.Tables(), purge.Tables(), report.Tables(), media.Tables(),
		search.Tables())
}

// effects are what partitions do to each other.
func effects() map[string]partition.EffectHandler {
	return merge(room.Effects(), account.Effects(), media.Effects())
}

// openCore starts the partitions and the feed.
func (s *Server) openCore(ctx context.Context) (err error) {
	wire, err := newWire()
	if err != nil {
		return fmt.Errorf("commands: %w", err)
	}
	s.node, err = cluster.Start(ctx, s.clusterOptions(cluster.Options{
		Node: s.bus.id, Count: s.store.partitions, Store: s.store, Bus: s.bus.Bus, Clock: s.clock(), Log: s.log,
		Tables:     pinned(),
		Effects:    effects(),
		CacheBytes: rowCacheBytes,
		Metrics:    partition.NewMetrics(s.registry),
	}, wire))
	if err != nil {
		return s.notAlone(err)
	}
	s.countOwned()
	s.consumers = consumer.NewSet(consumer.Options{
		Store: s.store, Router: s.node, Clock: s.clock(), Log: s.log, Metrics: s.registry,
	})
	if err = s.consumers.Add(consumer.Consumer{
		Name: farewell.Name, Handler: farewell.Handler{Router: s.node, Accounts: s.accounts()},
	}); err != nil {
		return fmt.Errorf("consumers: %w", err)
	}
	if s.cfg.Registration.Guests {
		err = s.consumers.Add(consumer.Consumer{
			Name: farewell.GuestsName, Handler: farewell.Guests{Router: s.node, Accounts: s.accounts(), Rooms: s.rooms()},
		})
		if err != nil {
			return fmt.Errorf("consumers: %w", err)
		}
	}
	if s.cfg.Server.HasRole(config.RoleWorker) {
		s.node.Watch(s.consumers)
		s.followOthers()
	}
	s.hub, err = feed.NewHub(ctx, feed.Options{
		Node: s.bus.id, Count: s.store.partitions, Store: s.store, Bus: s.bus.Bus, Heads: s.node,
		Clock: s.clock(), Log: s.log, Rules: pushrules.NewDefaults(s.pushRules()), Router: s.node,
		Presence: s.cfg.Presence.Enabled, Retention: s.retention(), Generation: s.store.generation,
		Typing: s.services.typing, Present: s.services.present, Damage: s.store.damage,
	})
	if err != nil {
		return fmt.Errorf("feed: %w", err)
	}
	return nil
}

// openEdge builds the API, the gateway and the HTTP server.
func (s *Server) openEdge() error {
	limiter, err := s.openLimiter()
	if err != nil {
		return err
	}
	s.tokens = session.NewAuthenticator(s.accounts(), s.node, s.cfg.Server.Name, s.clock(), s.log)
	var dispatch lateAPI
	s.gateway = gateway.New(gateway.Config{
		API: &dispatch, Auth: s.tokens, Feed: s.hub, Log: s.log, Registry: s.registry,
		PublicBaseURL: s.URL(), DrainSpread: s.shutdownSpread(), Withdrawn: s.node.Withdrawn, Recheck: s.recheck(),
	})
	routes, err := s.routes(limiter, &dispatch)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	routes = append(routes, s.gateway.Routes()...)
	s.table = routes
	if s.lot, err = parking.NewLot(); err != nil {
		return err
	}
	d, err := api.New(routes, api.Options{
		Auth:    session.NewServiceAuthenticator(s.tokens, s.services.registry, s.accounts()),
		Service: s.service, Limiter: limiter, Clock: s.clock(), Log: s.log, Metrics: s.registry,
		TrustedProxies: s.cfg.Server.TrustedProxies, Lot: s.lot,
	})
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	dispatch.Dispatcher, s.api = d, d
	s.http = api.NewHTTPServer(d.Handler(web.Handler()))
	s.http.ConnContext = s.lot.ConnContext
	s.http.BaseContext = func(net.Listener) context.Context { return s.requests }
	return nil
}

// lateAPI lets the gateway, whose route is in the dispatcher's table, call the
// dispatcher. It is set before the first socket opens.
type lateAPI struct{ *api.Dispatcher }

// routes is the table of all endpoints but the socket.
func (s *Server) routes(limiter limiter, calls *lateAPI) ([]api.Route, error) {
	people, err := s.people(limiter)
	if err != nil {
		return nil, err
	}
	sessions := people.sessions
	inRooms := rooms.New(rooms.Deps{
		Server: s.cfg.Server.Name, Router: s.node, Rooms: s.rooms(), Accounts: s.accounts(),
		Services: s.services.registry, Asker: s.services.client, Networks: appservice.NewDirectory(s.store, s.store.partitions),
		Search: s.search,
		Typer:  s.hub, DefaultVersion: s.cfg.Rooms.DefaultVersion, Delayed: s.newDelayed(), RuleOptions: s.pushRules(), Clock: s.clock(), Log: s.log,
	})
	if err := s.delayed.Start(inRooms); err != nil {
		return nil, err
	}
	ofUsers := userdata.New(userdata.Deps{
		Server: s.cfg.Server.Name, SearchAll: s.cfg.Directory.SearchAllUsers, Router: s.node, Accounts: s.accounts(),
		Asker: s.services.client,
		State: s.rooms(), Rooms: inRooms, Rules: pushrules.NewDefaults(s.pushRules()), RuleOptions: s.pushRules(),
	})
	encryption := e2ee.New(e2ee.Deps{
		Server: s.cfg.Server.Name, Router: s.node, Accounts: s.accounts(), Feed: s.hub, Prover: sessions,
	})
	about, err := discovery.New(discovery.Deps{
		Server: s.cfg.Server.Name, Version: obs.ReadBuild().Version, BaseURL: s.URL(),
		Registration: s.cfg.Registration.Mode, TestMode: s.cfg.Server.TestMode, Email: people.contacts.Enabled(), DefaultRoomVersion: s.cfg.Rooms.DefaultVersion,
		MaxEventDelay: s.delayed.MaxDelay(), MaxDelayed: s.cfg.Limits.MaxDelayedEvents, Livekit: s.cfg.RTC.LivekitURLs,
		Retention: s.retentionPolicies(), ThreadRules: s.cfg.Push.ThreadSubscriptions, WebPush: s.push.WebKey(),
	})
	if err != nil {
		return nil, err
	}
	var all []api.Route
	all = append(all, sessions.Routes()...)
	all = append(all, s.accountRoutes(people)...)
	all = append(all, syncing.Routes(s.hub)...)
	all = append(all, s.presenceRoutes()...)
	all = append(all, s.pushRoutes()...)
	all = append(all, inRooms.Routes()...)
	all = append(all, ofUsers.Routes()...)
	all = append(all, encryption.Routes()...)
	all = append(all, about.Routes()...)
	all = append(all, s.serviceRoutes()...)
	all = append(all, mediaapi.New(mediaapi.Deps{
		Server: s.cfg.Server.Name, Media: s.media,
		Legacy: s.cfg.Media.LegacyDownload, Previews: !s.cfg.Media.NoPreviews,
	}).Routes()...)
	all = append(all, s.adminRoutes(sessions, calls)...)
	return all, nil
}

// pushRules are the predefined push rules of every account: with those that look
// for names in the text, which old clients, bridges and bots rely on.
func (s *Server) pushRules() pushrules.Options {
	return pushrules.Options{LegacyMentions: true, ThreadSubscriptions: s.cfg.Push.ThreadSubscriptions}
}
