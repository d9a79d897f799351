package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// startPatience bounds the start of a child, stopPatience its end.
	startPatience = 30 * time.Second
	stopPatience  = 30 * time.Second
)

var (
	errNoFigure = errors.New("the server does not tell")
	errRemote   = errors.New("the address is not of this machine (--allow-remote allows it)")
)

// server is the server under load: a child of this process, or one that runs
// already.
type server struct {
	url string
	// metrics is the URL of its metrics, "" if unknown.
	metrics string
	// pids are its processes, none if they are unknown or on another machine.
	pids []int

	child *child
	http  *http.Client
}

// child is a server process that this one started.
type child struct {
	serveOptions
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the exit; set before exited is closed
	log    *os.File
}

// serveOptions say how to start a server.
type serveOptions struct {
	program string
	args    []string
	// dir is for its data and its log.
	dir     string
	profile bool
}

// attach describes a server that runs already.
func attach(ctx context.Context, a *targetArgs) (*server, error) {
	s := &server{url: strings.TrimSuffix(a.URL, "/"), metrics: strings.TrimSuffix(a.MetricsURL, "/"), pids: a.PIDs, http: &http.Client{Timeout: time.Minute}}
	for _, u := range []string{s.url, s.metrics} {
		if u == "" || a.AllowRemote {
			continue
		}
		if err := checkLocal(ctx, u); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkLocal refuses a URL whose host is not this machine alone.
func checkLocal(ctx context.Context, raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return fmt.Errorf("server address: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("server address %q: it begins with http:// or https:// and has a host", raw)
	}
	found, err := new(net.Resolver).LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return fmt.Errorf("server address: %w", err)
	}
	for _, ip := range found {
		if ip == (netip.Addr{}) || !ip.Unmap().IsLoopback() {
			return fmt.Errorf("server address %q: %w", raw, errRemote)
		}
	}
	return nil
}

// start runs a server on the data in o.dir and waits until it is ready.
func start(ctx context.Context, o serveOptions) (*server, error) {
	metrics, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{
		"serve", "--test-mode", "--data", filepath.Join(o.dir, "data"),
		"--listen", "127.0.0.1:0", "--metrics-listen", metrics,
	}
	if o.profile {
		args = append(args, "--server.pprof")
	}
	c := &child{serveOptions: o, exited: make(chan struct{})}
	c.log, err = os.OpenFile(filepath.Join(o.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of the server: %w", err)
	}
	c.cmd = exec.Command(o.program, append(args, o.args...)...)
	c.cmd.Stderr = c.log
	// The server must not outlive this process, and a ^C is for this process.
	c.cmd.SysProcAttr = childAttributes()
	out, err := c.cmd.StdoutPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start the server: %w", err), c.log.Close())
	}
	told := make(chan string, 1)
	go c.watch(out, told)
	s := &server{metrics: "http://" + metrics, pids: []int{c.cmd.Process.Pid}, child: c, http: &http.Client{Timeout: time.Minute}}
	if err := s.await(ctx, told); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// watch reads what the child prints, tells its URL, and waits for its end.
func (c *child) watch(out io.Reader, told chan<- string) {
	defer close(c.exited)
	lines := bufio.NewScanner(out)
	for found := false; lines.Scan(); {
		if _, u, ok := strings.Cut(lines.Text(), " is at "); ok && !found {
			found = true
			told <- strings.TrimSpace(u)
		}
	}
	c.err = c.cmd.Wait()
}

// await waits for the child's URL and for its readiness.
func (s *server) await(ctx context.Context, told <-chan string) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	select {
	case s.url = <-told:
	case <-s.child.exited:
		return fmt.Errorf("the server ended while it started: %w%s", s.child.err, s.child.lastWords())
	case <-ctx.Done():
		return fmt.Errorf("start the server: %w", ctx.Err())
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := s.get(ctx, s.metrics+"/readyz"); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.child.exited:
			return fmt.Errorf("the server ended before it was ready: %w%s", s.child.err, s.child.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w", ctx.Err())
		}
	}
}

// lastWords is the end of the child's log.
func (c *child) lastWords() string { return lastWords(c.log.Name()) }

// lastWords is the end of a file.
func lastWords(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return "\n" + string(b[max(0, len(b)-2000):])
}

// close ends a child in good order; a server that ran already is left alone.
func (s *server) close() error {
	s.http.CloseIdleConnections()
	if s.child == nil {
		return nil
	}
	c := s.child
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // if it is gone, so be it
	select {
	case <-c.exited:
	case <-time.After(stopPatience):
		_ = c.cmd.Process.Kill()
		<-c.exited
		return errors.Join(errors.New("the server did not stop when it was asked to"), c.log.Close())
	}
	err := c.log.Close()
	if c.err != nil {
		err = errors.Join(fmt.Errorf("the server ended: %w%s", c.err, c.lastWords()), err)
	}
	return err
}

// restart stops a child and starts it anew on its data.
func (s *server) restart(ctx context.Context) error {
	if err := s.close(); err != nil {
		return err
	}
	n, err := start(ctx, s.child.serveOptions)
	if err != nil {
		s.child = nil // there is nothing to close
		return err
	}
	*s = *n
	return nil
}

// freeAddr returns an address that was free a moment ago.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	return addr, nil
}

func (s *server) get(ctx context.Context, u string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", u, err)
	}
	res, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", u, res.Status)
	}
	return b, err
}

// scrape reads the server's metrics: the sum of each over its labels.
func (s *server) scrape(ctx context.Context) (map[string]float64, error) {
	if s.metrics == "" {
		return nil, fmt.Errorf("metrics: %w", errNoFigure)
	}
	b, err := s.get(ctx, s.metrics+"/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(b), nil
}

// parseMetrics adds the samples of each name up. It reads the text format of
// Prometheus.
func parseMetrics(b []byte) map[string]float64 {
	sums := make(map[string]float64)
	for line := range bytes.Lines(b) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		name, rest, labelled := strings.Cut(text, "{")
		if labelled {
			// A label's value may hold a brace; the sample's value does not.
			rest = rest[strings.LastIndexByte(rest, '}')+1:]
		} else {
			name, rest, _ = strings.Cut(text, " ")
		}
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			sums[name] += v
		}
	}
	return sums
}

// cpu is the CPU time that the server has used.
func (s *server) cpu(metrics map[string]float64) (time.Duration, error) {
	if len(s.pids) > 0 {
		var sum time.Duration
		for _, pid := range s.pids {
			used, err := familyCPU(pid)
			if err != nil {
				return 0, err
			}
			sum += used
		}
		return sum, nil
	}
	if v, ok := metrics["process_cpu_seconds_total"]; ok {
		return time.Duration(v * float64(time.Second)), nil
	}
	return 0, fmt.Errorf("CPU time: %w", errNoFigure)
}

// rss is the server's resident memory in bytes.
func (s *server) rss(metrics map[string]float64) (int64, error) {
	if len(s.pids) > 0 {
		return processRSS(s.pids[0])
	}
	if v, ok := metrics["process_resident_memory_bytes"]; ok {
		return int64(v), nil
	}
	return 0, fmt.Errorf("memory: %w", errNoFigure)
}
