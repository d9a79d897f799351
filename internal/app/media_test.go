package app_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/obs"
)

// A server that cannot open its store of media says so, and does not start.
func TestNoPlaceForMedia(t *testing.T) {
	for store, want := range map[string]string{
		config.MediaFiles: "not a directory",
		"s3://bucket?endpoint=http://127.0.0.1:1&region=us-east-1": "connection refused",
	} {
		cfg := config.Default()
		cfg.Server.DataDir, cfg.Server.Listen = t.TempDir(), []string{"127.0.0.1:0"}
		cfg.Media.Store, cfg.Media.StoreAccessKey, cfg.Media.StoreSecretKey = store, "key", "secret"
		if err := os.WriteFile(filepath.Join(cfg.Server.DataDir, "media"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := app.New(t.Context(), cfg, obs.Discard())
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", store, err, want)
		}
	}
}
