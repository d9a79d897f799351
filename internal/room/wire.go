package room

import (
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// Commands are values of all commands of the package, for nodes to send them to each
// other.
func Commands() []partition.Command {
	return []partition.Command{
		&SetAlias{},
		&DeleteAlias{},
		&MoveAlias{},
		&Send{},
		&Block{},
		&Create{},
		&SetPublic{},
		&SendDelayed{},
		&Erase{},
		&Trim{},
		&Drop{},
		&SetReceipt{},
		&Redact{},
		&AddWatch{},
		&Unwatch{},
		&Import{},
	}
}
