package app

import (
	"context"
	"time"

	"github.com/hubbub-chat/hubbub/internal/api"
	"github.com/hubbub-chat/hubbub/internal/api/admin"
	"github.com/hubbub-chat/hubbub/internal/api/session"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/purge"
	"github.com/hubbub-chat/hubbub/internal/report"
)

// adminRoutes are what administrators and their tools do.
func (s *Server) adminRoutes(sessions *session.Module, calls admin.Caller) []api.Route {
	s.purges = purge.Start(purge.Options{
		Count: s.store.partitions, Store: s.store, Router: s.node, Owner: s.node,
		Accounts: s.accounts(), Rooms: s.expiredToo(), Index: s.search, Clock: s.clock(), Log: s.log,
		Retention: purge.Retention{
			Retention: s.retention(), Every: time.Duration(s.cfg.Retention.SweepIntervalMS) * time.Millisecond,
			Media: time.Duration(s.cfg.Retention.MediaMaxLifetimeMS) * time.Millisecond,
			DeleteMedia: func(ctx context.Context, before int64) error {
				_, err := s.media.DeleteOlderThan(ctx, before, nil)
				return err
			},
		},
	})
	return admin.New(admin.Deps{
		Server: s.cfg.Server.Name, Version: "hubbub " + obs.ReadBuild().Version, Count: s.store.partitions, Store: s.store,
		Router: s.node, Accounts: s.accounts(), Rooms: s.rooms(), Reports: report.NewReader(s.store, s.store.partitions),
		Sessions: sessions, Purges: s.purges, Media: s.media, Retention: s.retention(), API: calls, Clock: s.clock(),
		Changed: func(user ids.UserID) {
			s.tokens.Forget(user)
			s.gateway.RecheckUser(user)
			s.tellEnded(user, nil)
		},
	}).Routes()
}
