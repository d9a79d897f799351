package cluster_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hubbub-chat/hubbub/internal/app"
	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// refused tries to start a node, which has to fail and say all of these.
func refused(t *testing.T, cfg config.Config, say ...string) {
	t.Helper()
	cfg.Server.DataDir = t.TempDir()
	cfg.Server.Listen = []string{"127.0.0.1:0"}
	s, err := app.New(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil {
		_ = s.Close()
		t.Fatalf("it started; want a refusal that says %q", say)
	}
	t.Logf("%v", err)
	for _, part := range say {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("it does not say %q", part)
		}
	}
}

// A node that does not belong to the deployment is refused at its start, and its
// operator is told what to do.
func TestMisuse(t *testing.T) {
	pg := pgtest.Start(t)
	store := pg.Database(t)
	secret := func(c *config.Config) {
		c.Server.Store, c.Cluster.Listen, c.Cluster.LeaseMS = store, faultnet.Address(t), 2000
		c.Cluster.Secret = "of all nodes"
	}
	a := apptest.Start(t, secret)
	// second is the configuration of a node that could be the second.
	second := func(change func(*config.Config)) config.Config {
		c := a.Config
		secret(&c)
		c.Server.Join = []string{a.ClusterAddr}
		change(&c)
		return c
	}
	for name, tt := range map[string]struct {
		change func(*config.Config)
		say    []string
	}{
		"no database": {
			func(c *config.Config) { c.Server.Store = "postgres://hubbub@" + faultnet.Address(t) + "/hubbub" },
			[]string{"server.store", "connection refused", "runs"},
		},
		"another database's name": {
			func(c *config.Config) { c.Server.Store = pg.URL("nowhere") },
			[]string{"server.store", `"nowhere" does not exist`, "name"},
		},
		"no URL": {
			func(c *config.Config) { c.Server.Store = "postgres://h:port:port/x" },
			[]string{"server.store", "postgres://user:password@host:5432/hubbub"},
		},
		"another number of partitions": {
			func(c *config.Config) { c.Server.Partitions = 16 },
			[]string{"set server.partitions = 8"},
		},
		"another server's name": {
			func(c *config.Config) { c.Server.Name = "other.example" },
			[]string{`set server.name = "` + apptest.Name + `"`},
		},
		"another secret": {
			func(c *config.Config) { c.Cluster.Secret = "of nobody" },
			[]string{"refused by another node", "cluster.secret"},
		},
		"a second cluster": {
			func(c *config.Config) { c.Server.Join = nil },
			[]string{"another node", "server.join"},
		},
		"a process alone": {
			func(c *config.Config) { c.Server.Join, c.Cluster = nil, config.Default().Cluster },
			[]string{"another process", "cluster.listen", "server.join"},
		},
	} {
		t.Run(name, func(t *testing.T) { refused(t, second(tt.change), tt.say...) })
	}
	t.Run("a newer schema", func(t *testing.T) {
		newer := pg.Database(t)
		prepared := apptest.Start(t, func(c *config.Config) { c.Server.Store = newer })
		prepared.Stop()
		c, err := pgx.Connect(t.Context(), newer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(t.Context(), "INSERT INTO hubbub_schema (version_id, is_applied) VALUES (9999, true)"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close(context.Background())
		refused(t, second(func(c *config.Config) { c.Server.Store = newer }), "9999", "start the newer program")
	})
	alice := a.User(t, "alice") // nobody harmed the one that runs
	alice.CreateRoom(t, apptest.Object{})
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	a.cert = a.sign("authority", &a.key.PublicKey, &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// sign writes a certificate to NAME.crt.
func (a *authority) sign(name string, key *ecdsa.PublicKey, c *x509.Certificate) *x509.Certificate {
	a.t.Helper()
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := a.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return signed
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// node configures a node with a certificate of its own.
func (a *authority) node(name string, c *config.Config) {
	a.t.Helper()
	key := a.newKey()
	a.sign(name, &key.PublicKey, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "EC PRIVATE KEY", der)
	c.Cluster.TLSCert, c.Cluster.TLSKey = filepath.Join(a.dir, name+".crt"), filepath.Join(a.dir, name+".key")
	c.Cluster.TLSCA = filepath.Join(a.dir, "authority.crt")
}

// Nodes with certificates of one authority talk, encrypted; one with another's, or
// with none, is refused.
func TestTLSBetweenNodes(t *testing.T) {
	store := pgtest.Start(t).Database(t)
	ours, theirs := newAuthority(t), newAuthority(t)
	start := func(name string, join ...string) *apptest.Server {
		return apptest.Start(t, func(c *config.Config) {
			c.Server.Store, c.Cluster.Listen, c.Server.Join = store, faultnet.Address(t), join
			ours.node(name, c)
		})
	}
	a := start("a")
	b := start("b", a.ClusterAddr)
	alice, bob := a.User(t, "alice"), b.User(t, "bob")
	room := alice.CreateRoom(t, apptest.Object{"preset": "public_chat"})
	bob.Join(t, room)
	for i := range 20 {
		say(t, on(bob, []*apptest.Server{a, b}[i%2]), room, i)
	}
	// What goes over the wire begins as TLS does: a client that only speaks NATS is
	// not understood.
	conn, err := net.Dial("tcp", a.ClusterAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	fmt.Fprintf(conn, "PING\r\n")
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	for buf, n, err := make([]byte, 4096), 0, error(nil); err == nil; n, err = conn.Read(buf) {
		if strings.Contains(string(buf[:n]), "PONG") {
			t.Error("a node answers what is not encrypted")
		}
	}
	third := a.Config
	third.Cluster.Listen, third.Server.Join = faultnet.Address(t), []string{a.ClusterAddr}
	theirs.node("c", &third)
	refused(t, third, "refused by another node", "authority")
	third.Cluster.TLSCert, third.Cluster.TLSKey, third.Cluster.TLSCA = "", "", ""
	refused(t, third, "not heard of", "server.join", "cluster.tls_cert")
}
