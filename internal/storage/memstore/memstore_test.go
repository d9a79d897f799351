package memstore_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hubbub-chat/hubbub/internal/clock"
	"github.com/hubbub-chat/hubbub/internal/storage/memstore"
	"github.com/hubbub-chat/hubbub/internal/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storagetest.Run(t, func(testing.TB) storagetest.Opened {
		c := clock.NewManual(time.Unix(1_700_000_000, 0))
		return storagetest.Opened{Store: memstore.New(c), Clock: c}
	})
}
