// Package deploy tests the files in deploy/: load balancers, services, charts and
// what watches them, with the programs that they are for.
package deploy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/app/apptest"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/lint/skip"
)

// host is the name in the files.
const host = "chat.example.org"

// startTimeout is for a program on a busy machine.
const startTimeout = 30 * time.Second

// ports are where the parts of one test listen.
type ports struct{ tls, plain, server, metrics string }

// proxy is a program and its file. lines are replaced in the file: the test may not
// take the ports and paths of the machine. Everything else stays as it is.
type proxy struct {
	name, program, file string
	lines               func(p ports, dir string) map[string]string
	args                func(file, dir string) []string
	// asks says that the program asks for the health of a server.
	asks bool
}

func proxies() []proxy {
	return []proxy{
		{
			name: "nginx", program: "nginx", file: "nginx/hubbub.conf",
			lines: func(p ports, dir string) map[string]string {
				return map[string]string{
					"listen 443 ssl http2;":          "listen 127.0.0.1:" + p.tls + " ssl http2;",
					"listen 80;":                     "listen 127.0.0.1:" + p.plain + ";",
					"server 127.0.0.1:8008 ":         "server 127.0.0.1:" + p.server + " ",
					"/etc/ssl/hubbub/fullchain.pem;": dir + "/cert.pem;",
					"/etc/ssl/hubbub/privkey.pem;":   dir + "/key.pem;",
				}
			},
			args: func(file, dir string) []string {
				main := filepath.Join(dir, "nginx.conf")
				text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr; events {}
http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
include %[2]s; }`, dir, file)
				if err := os.WriteFile(main, []byte(text), 0o600); err != nil {
					panic(err)
				}
				return []string{"-e", "stderr", "-p", dir, "-c", main}
			},
		},
		{
			name: "HAProxy", program: "haproxy", file: "haproxy/haproxy.cfg", asks: true,
			lines: func(p ports, dir string) map[string]string {
				return map[string]string{
					"bind :443 ssl crt /etc/ssl/hubbub/hubbub.pem ": "bind 127.0.0.1:" + p.tls + " ssl crt " + dir + "/both.pem ",
					"bind :80":             "bind 127.0.0.1:" + p.plain,
					"maxconn 100000":       "maxconn 1000", // the machine's limit of open files may be low
					"node1 127.0.0.1:8008": "node1 127.0.0.1:" + p.server,
					"port 9008":            "port " + p.metrics,
				}
			},
			args: func(file, _ string) []string { return []string{"-db", "-f", file} },
		},
		{
			name: "Caddy", program: "caddy", file: "caddy/Caddyfile", asks: true,
			lines: func(p ports, dir string) map[string]string {
				return map[string]string{
					"\nchat.example.org {":          fmt.Sprintf("\n{\n\tadmin off\n\thttp_port %s\n\thttps_port %s\n\tdefault_bind 127.0.0.1\n\tskip_install_trust\n}\n\nchat.example.org {\n\ttls %s/cert.pem %s/key.pem", p.plain, p.tls, dir, dir),
					"reverse_proxy 127.0.0.1:8008 ": "reverse_proxy 127.0.0.1:" + p.server + " ",
					"health_port 9008":              "health_port " + p.metrics,
				}
			},
			args: func(file, _ string) []string { return []string{"run", "--adapter", "caddyfile", "--config", file} },
		},
	}
}

// TestProxies drives a server through each load balancer with the file that is
// shipped for it.
func TestProxies(t *testing.T) {
	for _, p := range proxies() {
		t.Run(p.name, func(t *testing.T) {
			program := find(t, p.program)
			dir := t.TempDir()
			pool := certificate(t, dir)
			at := ports{tls: freePort(t), plain: freePort(t)}
			metrics := "127.0.0.1:" + freePort(t)
			s := apptest.Start(t, func(c *config.Config) {
				c.Server.MetricsListen = metrics
				c.Server.PublicBaseURL = "https://" + host
				c.Server.Listen = []string{"127.0.0.1:" + freePort(t)}
				c.Server.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
			})
			at.server = portOf(t, s.Config.Server.Listen[0])
			checked, health := healthSpy(t, metrics)
			at.metrics = health
			run(t, program, p.args(p.adapted(t, at, dir), dir), dir)

			front := &through{t: t, url: "https://" + host, tls: at.tls, pool: pool}
			front.awaitUp()
			front.redirects(at.plain)
			s.URL = front.url
			front.chat(s)
			front.smuggle(s)
			if p.asks {
				select {
				case <-checked:
				case <-time.After(startTimeout):
					t.Error("nobody asked /readyz")
				}
			}
		})
	}
}

func find(t *testing.T, program string) string {
	t.Helper()
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	skip.Test(t, fmt.Sprintf("no %s: install it (Debian: %s) to run this test", program, program))
	return ""
}

// adapted writes the shipped file with its few lines replaced, each of which has to
// be there.
func (p proxy) adapted(t *testing.T, at ports, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../deploy", p.file))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for from, to := range p.lines(at, dir) {
		if strings.Count(text, from) != 1 {
			t.Fatalf("%s has %q %d times", p.file, from, strings.Count(text, from))
		}
		text = strings.Replace(text, from, to, 1)
	}
	file := filepath.Join(dir, "proxy.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// run starts a program until the test ends.
func run(t *testing.T, program string, args []string, dir string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(startTimeout, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		_ = cmd.Wait() // ended by a signal
		kill.Stop()
		if t.Failed() {
			t.Logf("%s said: %s", program, log.String())
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	return portOf(t, apptest.FreeAddr(t))
}

func portOf(t *testing.T, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// healthSpy stands before a metrics address and tells when /readyz was asked for.
func healthSpy(t *testing.T, metrics string) (checked <-chan struct{}, port string) {
	t.Helper()
	seen := make(chan struct{})
	var once sync.Once
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: metrics})
	spy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			once.Do(func() { close(seen) })
		}
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(spy.Close)
	return seen, portOf(t, spy.Listener.Addr().String())
}

// certificate writes one for host in the forms that the programs read, and returns
// who trusts it.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	for name, content := range map[string][]byte{"cert.pem": cert, "key.pem": private, "both.pem": append(append([]byte{}, cert...), private...)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return pool
}

// through is a way to the server through a proxy.
type through struct {
	t        *testing.T
	url, tls string
	pool     *x509.CertPool
}

// dial connects to the proxy from an address that is not the proxy's own.
func (f *through) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	return d.DialContext(ctx, "tcp", "127.0.0.1:"+f.tls)
}

func (f *through) client() *http.Client {
	c := &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return f.dial(ctx) },
		TLSClientConfig:   &tls.Config{RootCAs: f.pool, ServerName: host},
		ForceAttemptHTTP2: true,
	}}
	f.t.Cleanup(c.CloseIdleConnections)
	return c
}

// awaitUp waits until the program answers for the server.
func (f *through) awaitUp() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), startTimeout)
	defer cancel()
	client := f.client()
	for {
		req, _ := http.NewRequestWithContext(ctx, "GET", f.url+"/_matrix/client/versions", nil)
		res, err := client.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-ctx.Done():
			f.t.Fatalf("the proxy does not answer: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// redirects: plain HTTP leads to HTTPS.
func (f *through) redirects(plain string) {
	f.t.Helper()
	req, _ := http.NewRequestWithContext(f.t.Context(), "GET", "http://127.0.0.1:"+plain+"/x", nil)
	req.Host = host
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		f.t.Fatal(err)
	}
	_ = res.Body.Close()
	to, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode/100 != 3 || to.Scheme != "https" || to.Hostname() != host || to.Path != "/x" {
		f.t.Errorf("plain HTTP: %d to %q", res.StatusCode, res.Header.Get("Location"))
	}
}
