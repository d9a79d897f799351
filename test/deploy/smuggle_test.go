package deploy

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
)

// smuggling are heads with which a proxy and a server may disagree about where a
// request ends; %d is the length of what follows, as a body.
func smuggling() map[string]string {
	return map[string]string{
		"a length":               "Content-Length: %d\r\n",
		"no length":              "",
		"two lengths":            "Content-Length: 0\r\nContent-Length: %d\r\n",
		"two lengths, turned":    "Content-Length: %d\r\nContent-Length: 0\r\n",
		"a list of lengths":      "Content-Length: 0, %d\r\n",
		"a signed length":        "Content-Length: +%d\r\n",
		"a negative length":      "Content-Length: -%d\r\n",
		"a length in hex":        "Content-Length: 0x%x\r\n",
		"a length with a space":  "Content-Length: 0 %d\r\n",
		"both":                   "Content-Length: %d\r\nTransfer-Encoding: chunked\r\n",
		"both, turned":           "Transfer-Encoding: chunked\r\nContent-Length: %d\r\n",
		"unknown coding":         "Content-Length: %d\r\nTransfer-Encoding: xchunked\r\n",
		"two codings":            "Content-Length: %d\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
		"a list of codings":      "Content-Length: %d\r\nTransfer-Encoding: identity, chunked\r\n",
		"coding with a tab":      "Content-Length: %d\r\nTransfer-Encoding:\tchunked\r\n",
		"coding with a strange":  "Content-Length: %d\r\nTransfer-Encoding:\vchunked\r\n",
		"coding folded":          "Content-Length: %d\r\nX: y\r\n Transfer-Encoding: chunked\r\n",
		"coding quoted":          "Content-Length: %d\r\nTransfer-Encoding: \"chunked\"\r\n",
		"space before the colon": "Content-Length: %d\r\nTransfer-Encoding : chunked\r\n",
		"a bare line feed":       "Content-Length: %d\r\nX: y\nTransfer-Encoding: chunked\r\n",
		"a bare return":          "Content-Length: %d\r\nX: y\rTransfer-Encoding: chunked\r\n",
		"NUL":                    "Content-Length: %d\r\nX: a\x00b\r\n",
		"an underscore":          "Content-Length: %d\r\nTransfer_Encoding: chunked\r\n",
		"hop by hop":             "Content-Length: %d\r\nConnection: keep-alive, Content-Length\r\n",
		"an upgrade":             "Content-Length: %d\r\nConnection: upgrade\r\nUpgrade: h2c\r\n",
	}
}

// smuggle sends what a proxy and the server may read as different requests. Whatever
// they make of it, they agree: the server did what stands behind the first request only
// if the proxy answered for it, and nobody is sent the answer to another's request.
func (f *through) smuggle(s *apptest.Server) {
	t := f.t
	t.Helper()
	mallory, victim := f.user(s, "mallory"), f.user(s, "victim")
	profile := "/_matrix/client/v3/profile/" + url.PathEscape(mallory.UserID) + "/displayname"
	kinds := map[string]int{}
	for what, head := range smuggling() {
		for _, chunks := range []string{"", "0\r\n\r\n"} {
			name := fmt.Sprintf("%s %t", what, chunks != "")
			body := fmt.Sprintf(`{"displayname":%q}`, name)
			hidden := fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", profile, host, mallory.Token, len(body), body)
			if strings.Contains(head, "%") {
				head = fmt.Sprintf(head, len(chunks)+len(hidden))
			}
			told := f.answers("POST /_matrix/client/v3/nothing HTTP/1.1\r\nHost: " + host + "\r\n" + head + "\r\n" + chunks + hidden +
				"GET /_matrix/client/versions HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n")
			shown := mallory.Must(t, "GET", profile, nil)["displayname"]
			if done := shown == name; done != (told.hidden > 0) {
				t.Errorf("%s: the hidden request was done: %v, and answered %d times, in %d answers", name, done, told.hidden, told.all)
			}
			kinds[fmt.Sprint(told.all)]++
			for range 3 {
				if got := victim.Must(t, "GET", "/_matrix/client/v3/account/whoami", nil)["user_id"]; got != victim.UserID {
					t.Errorf("%s: the victim is told to be %v", name, got)
				}
			}
		}
	}
	t.Logf("requests by the number of answers: %v", kinds)
	if kinds["1"] == 0 || kinds["2"]+kinds["3"] == 0 {
		t.Errorf("the set refuses or takes all: %v", kinds)
	}
}

// answered counts the answers on a connection, and those to the hidden request.
type answered struct{ all, hidden int }

// answers sends bytes on a connection of their own and reads until it is closed.
func (f *through) answers(text string) (out answered) {
	t := f.t
	t.Helper()
	plain, err := f.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(plain, &tls.Config{RootCAs: f.pool, ServerName: host})
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(startTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			if out.all == 0 && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("no answer: %v", err)
			}
			return out
		}
		raw, err := io.ReadAll(res.Body)
		if err != nil {
			return out
		}
		if out.all++; res.StatusCode == http.StatusOK && strings.TrimSpace(string(raw)) == "{}" {
			out.hidden++
		}
	}
}
