package app

import (
	"context"
	"fmt"
	"net"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/api"
	pushapi "github.com/hubbub-chat/hubbub/internal/api/push"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/push"
	"github.com/hubbub-chat/hubbub/internal/push/webpush"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
)

// openPush begins to notify people who are not connected, if that is this process's
// part.
func (s *Server) openPush(ctx context.Context) error {
	key, err := s.store.webPushKey(ctx)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	s.push = push.New(push.Options{
		WebKey: key, Contact: contactOf(s.cfg.Server),
		Count: s.store.partitions, Store: s.store, Router: s.node, Clock: s.clock(), Log: s.log,
		Rules: pushrules.NewDefaults(s.pushRules()), Retention: s.retention(), Allow: s.cfg.Push.Allow, Metrics: s.registry, Damage: s.store.damage,
	})
	if !s.cfg.Server.HasRole(config.RoleWorker) {
		return nil
	}
	err = s.consumers.Add(consumer.Consumer{
		Name: push.ConsumerName, Start: consumer.AtHead, Handler: s.push, Gather: push.Gather,
	})
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return nil
}

// webPushKey is the key by which push services of browsers know the deployment. Browsers
// subscribed with it, so it is made once.
func (s *openedStore) webPushKey(ctx context.Context) (*webpush.Key, error) {
	fresh, err := webpush.NewKey()
	if err != nil {
		return nil, err
	}
	raw, err := s.InitMeta(ctx, metaWebPushKey, fresh)
	if err != nil {
		return nil, err
	}
	return webpush.ParseKey(raw)
}

// contactOf is whom the push services of browsers may turn to: some refuse to serve who
// names nobody. spec: RFC 8292 §2.1.
func contactOf(c config.Server) string {
	if strings.HasPrefix(c.PublicBaseURL, "https://") {
		return c.PublicBaseURL
	}
	host := c.Name
	if h, _, err := net.SplitHostPort(c.Name); err == nil {
		host = h
	}
	return "mailto:postmaster@" + host
}

func (s *Server) pushRoutes() []api.Route {
	return pushapi.New(pushapi.Deps{
		Router: s.node, Accounts: s.accounts(), Rooms: s.rooms(), Lister: s.push, PlainHTTP: len(s.cfg.Push.Allow) > 0,
	}).Routes()
}
