package app

import (
	"fmt"

	"github.com/hubbub-chat/hubbub/internal/api"
	pushapi "github.com/hubbub-chat/hubbub/internal/api/push"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/push"
	"github.com/hubbub-chat/hubbub/internal/pushrules"
)

// openPush begins to notify people who are not connected, if that is this process's
// part.
func (s *Server) openPush() error {
	s.push = push.New(push.Options{
		Count: s.store.partitions, Store: s.store, Router: s.node, Clock: s.clock(), Log: s.log,
		Rules: pushrules.NewDefaults(s.pushRules()), Retention: s.retention(), Allow: s.cfg.Push.Allow, Metrics: s.registry,
	})
	if !s.cfg.Server.HasRole(config.RoleWorker) {
		return nil
	}
	err := s.consumers.Add(consumer.Consumer{
		Name: push.ConsumerName, Start: consumer.AtHead, Handler: s.push, Gather: push.Gather,
	})
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	return nil
}

func (s *Server) pushRoutes() []api.Route {
	return pushapi.New(pushapi.Deps{
		Router: s.node, Accounts: s.accounts(), Rooms: s.rooms(), Lister: s.push, PlainHTTP: len(s.cfg.Push.Allow) > 0,
	}).Routes()
}
