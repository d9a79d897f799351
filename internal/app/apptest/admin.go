package apptest

import (
	"crypto/hmac"
	"crypto/sha1" // what tools that register by a shared secret use
	"encoding/hex"
	"net/http"
	"testing"
)

// Apart gives a client connections that no other one shares.
func (c *Client) Apart(t testing.TB) *Client {
	t.Helper()
	c.HTTP = &http.Client{Transport: &http.Transport{}}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// Admin registers an administrator, whose password is Password, as tools do it that
// know the shared secret.
func (s *Server) Admin(t testing.TB, name string) *Client {
	t.Helper()
	const path = "/_synapse/admin/v1/register"
	c := s.Anonymous().Apart(t)
	nonce, _ := c.Must(t, "GET", path, nil)["nonce"].(string)
	mac := hmac.New(sha1.New, []byte(s.Config.Registration.SharedSecret.Reveal()))
	mac.Write([]byte(nonce + "\x00" + name + "\x00" + Password + "\x00admin"))
	c.take(c.Must(t, "POST", path, Object{
		"nonce": nonce, "username": name, "password": Password, "admin": true, "mac": hex.EncodeToString(mac.Sum(nil)),
	}))
	return c
}
