package clients_test

import (
	"fmt"
	"os/exec"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// Users and a bridge made with mautrix-go chat, encrypt, sign each other's keys
// and restore a backup. The program of the module beside says what is checked.
func TestMautrixGo(t *testing.T) {
	t.Parallel()
	// Encryption in Go: nothing has to be there to build it. A workspace or a vendor
	// directory of the product has no part in it.
	env := []string{"CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off"}
	goModule := func(args ...string) *exec.Cmd {
		cmd := command(t, env, "go", args...)
		cmd.Dir = "mautrix"
		return cmd
	}
	if out, err := goModule("mod", "download").CombinedOutput(); err != nil {
		skip.Test(t, fmt.Sprintf("mautrix-go cannot be downloaded: %v\n%s", err, out))
	}
	registration, _ := service(t, "mautrix/bridge.yaml")
	run(t, goModule("run", "-tags", "goolm", ".", start(t, registration).URL, registration, apptest.Name))
}
