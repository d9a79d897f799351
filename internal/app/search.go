package app

import (
	"github.com/hubbub-chat/hubbub/internal/consumer"
	"github.com/hubbub-chat/hubbub/internal/search"
)

// openSearch makes the search index follow the logs.
func (s *Server) openSearch() error {
	s.search = search.New(s.store, s.node, s.rooms(), s.consumers)
	return s.consumers.Add(consumer.Consumer{
		Name: search.Name, Start: consumer.AtBeginning, Handler: s.search, Gather: search.Gather,
	})
}
