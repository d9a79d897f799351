package app

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/api"
	appserviceapi "github.com/hubbub-chat/hubbub/internal/api/appservice"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/merr"
	"github.com/hubbub-chat/hubbub/internal/storage"
	"github.com/hubbub-chat/hubbub/internal/tables"
)

// services is what has to do with application services.
type services struct {
	registry *appservice.Registry
	client   *appservice.Client
	// sender is nil until the core is open.
	sender atomic.Pointer[appservice.Sender]
}

// typing passes on who types in a room.
func (v *services) typing(r ids.RoomID, users []ids.UserID) { v.sender.Load().Typing(r, users) }

// loadServices reads the registrations. Whatever is wrong in one keeps the server
// from starting: a bridge that half works loses messages.
func (s *Server) loadServices() (err error) {
	if s.services.registry, err = appservice.Load(s.cfg.Server.AppserviceFiles, s.cfg.Server.Name); err != nil {
		return err
	}
	s.services.client = appservice.NewClient(s.services.registry, s.clock())
	return nil
}

// present passes on how present a user is.
func (v *services) present(u ids.UserID, event []byte, rooms []ids.RoomID) {
	v.sender.Load().Present(u, event, rooms)
}

// startServices begins to send services what they are interested in.
func (s *Server) startServices(ctx context.Context) error {
	if err := s.makeSenders(ctx); err != nil {
		return err
	}
	sender := appservice.NewSender(appservice.SenderOptions{
		Services: s.services.registry, Client: s.services.client, Store: s.store, Count: s.store.partitions,
		Router: s.node, Owns: s.node.Follows, Log: s.log, Metrics: s.registry,
		Retention: s.retention(), Clock: s.clock(), Damage: s.store.damage,
	})
	s.services.sender.Store(sender)
	return sender.Follow(ctx, s.consumers)
}

// makeSenders makes the user of each service that has none yet.
func (s *Server) makeSenders(ctx context.Context) error {
	for _, svc := range s.services.registry.All() {
		name := svc.Sender.Localpart()
		_, err := s.node.Do(ctx, account.NewRegister(svc.Sender, account.Account{}, name, nil))
		if err != nil && !merr.Is(err, merr.UserInUse) {
			return fmt.Errorf("user of application service %q: %w", svc.ID, err)
		}
	}
	return nil
}

// service returns the ID of the service whose token it is.
func (s *Server) service(token string) string {
	if svc := s.services.registry.ByToken(token); svc != nil {
		return svc.ID
	}
	return ""
}

// hasPeople reports whether a partition has an account that is not an application
// service's.
func (s *Server) hasPeople(ctx context.Context, p ids.Partition) (found bool, err error) {
	users := storage.Range{Partition: p, Table: tables.Users, Limit: storage.MaxScan}
	err = storage.Each(ctx, s.store, users, func(row storage.Entry) (more bool, err error) {
		found = !s.services.registry.Owns(ids.UserID(row.Sort))
		return !found, nil
	})
	if err != nil {
		return false, fmt.Errorf("look for accounts: %w", err)
	}
	return found, nil
}

func (s *Server) serviceRoutes() []api.Route {
	return appserviceapi.New(appserviceapi.Deps{
		Services: s.services.registry, Client: s.services.client, Pinged: s.services.sender.Load().Retry, Router: s.node, Rooms: s.rooms(),
	}).Routes()
}

func (v *services) close() {
	if s := v.sender.Load(); s != nil {
		s.Close()
	}
	if v.client != nil {
		v.client.Close()
	}
}
