package security

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/wsclient"
)

// TestSocketAsksForProofToo: what asks for a password over HTTP asks for it in a call
// over the socket as well, and the rights of administrators are asked for.
func TestSocketAsksForProofToo(t *testing.T) {
	t.Parallel()
	s := apptest.Start(t)
	alice := s.User(t, "alice")
	other := alice.Login(t)
	ws, err := wsclient.Dial(t.Context(), s.URL, wsclient.Options{Token: alice.Token})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.Close() }()
	call := func(method, target string, body object) (int, object) {
		t.Helper()
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		res, err := ws.Call(t.Context(), method, target, raw)
		if err != nil {
			t.Fatal(err)
		}
		out := object{}
		if err := json.Unmarshal(res.Body, &out); err != nil {
			t.Fatalf("%s: %v", res.Body, err)
		}
		return res.Status, out
	}
	for target, method := range map[string]string{
		v3 + "/devices/" + other.Device: "DELETE", v3 + "/delete_devices": "POST", v3 + "/account/password": "POST", v3 + "/account/deactivate": "POST",
	} {
		body := object{"devices": []string{other.Device}, "new_password": "a new one, longer"}
		if status, out := call(method, target, body); status != http.StatusUnauthorized || out["flows"] == nil {
			t.Errorf("%s %s: %d %v", method, target, status, out)
		}
	}
	if status, _ := call("GET", "/_synapse/admin/v2/users/"+alice.UserID, nil); status != http.StatusForbidden {
		t.Errorf("an administrator's route: %d", status)
	}
	other.Must(t, "GET", v3+"/account/whoami", nil)
	_, out := call("DELETE", v3+"/devices/"+other.Device, object{})
	proof := password(alice, apptest.Password)
	proof["session"] = out["session"]
	if status, out := call("DELETE", v3+"/devices/"+other.Device, object{"auth": proof}); status != http.StatusOK {
		t.Errorf("with the password: %d %v", status, out)
	}
	other.Fails(t, "GET", v3+"/account/whoami", nil, http.StatusUnauthorized, "M_UNKNOWN_TOKEN")
}
