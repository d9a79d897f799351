// Package clients_test lets Matrix clients and bridges of other people talk through the
// server, each as it is published: what they cannot read, or miss, is no promise kept.
package clients_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
)

// patience is how long a client may talk.
const patience = 3 * time.Minute

// start starts a server that knows an application service, unless registration is "".
// Media are downloaded as from one that is no test: with a token only.
func start(t *testing.T, registration string) *apptest.Server {
	t.Helper()
	return apptest.Start(t, func(c *config.Config) {
		c.Media.LegacyDownload = false
		if registration != "" {
			c.Server.AppserviceFiles = []string{registration}
		}
	})
}

// service returns a registration of an application service, in which PORT became a free
// one, and that port.
func service(t *testing.T, template string) (file, port string) {
	t.Helper()
	registration, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ = net.SplitHostPort(apptest.FreeAddr(t))
	file = filepath.Join(t.TempDir(), "registration.yaml")
	if err := os.WriteFile(file, bytes.ReplaceAll(registration, []byte("PORT"), []byte(port)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, port
}

// command is one of a client, which has to end while it is waited for.
func command(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second // what it started may hold its output open
	cmd.Env = append(cmd.Environ(), env...)
	return cmd
}

// run waits for the end of a client, which is an error if not all is as it expects.
func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
}
