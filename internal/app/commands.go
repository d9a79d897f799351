package app

import (
	"reflect"
	"slices"

	"github.com/hubbub-chat/hubbub/internal/account"
	"github.com/hubbub-chat/hubbub/internal/appservice"
	"github.com/hubbub-chat/hubbub/internal/delayed"
	"github.com/hubbub-chat/hubbub/internal/media"
	"github.com/hubbub-chat/hubbub/internal/partition"
	"github.com/hubbub-chat/hubbub/internal/purge"
	"github.com/hubbub-chat/hubbub/internal/report"
	"github.com/hubbub-chat/hubbub/internal/room"
	"github.com/hubbub-chat/hubbub/internal/roomstate"
	"github.com/hubbub-chat/hubbub/internal/search"
)

// commands are all that nodes send each other, but for the engine's own.
func commands() []partition.Command {
	return slices.Concat(
		account.Commands(), appservice.Commands(), delayed.Commands(), media.Commands(),
		purge.Commands(), report.Commands(), room.Commands(), search.Commands(),
	)
}

// unions are what may stand in fields of commands that are interfaces.
func unions() map[reflect.Type][]any { return account.Unions() }

func newWire() (*partition.Wire, error) {
	return partition.NewWire(partition.WireOptions{
		Commands: commands(), Unions: unions(),
		Failures: slices.Concat([]error{roomstate.ErrRejected}, account.Failures(), delayed.Failures()),
	})
}
