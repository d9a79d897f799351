package chaos

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hubbub-chat/hubbub/internal/bus/faultnet"
	"github.com/hubbub-chat/hubbub/internal/storage/pgstore/pgtest"
)

// binaryEnv names a server binary to test instead of one that is built.
const binaryEnv = "HUBBUB_TEST_BINARY"

// partitions are few, so that a room is found in each.
const partitions = 8

// liveness bounds what must happen sometime: far beyond any wait that is meant.
const liveness = 60 * time.Second

func build(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(binaryEnv); path != "" {
		return path
	}
	return buildWith(t, "")
}

// buildWith builds the server with a tag.
func buildWith(t *testing.T, tag string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hubbub")
	cmd := exec.Command("go", "build", "-tags", tag, "-o", path, "./cmd/hubbub")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return path
}

// fleet are nodes with a database, and with proxies in all the ways between them.
type fleet struct {
	t     *testing.T
	pg    *pgtest.Server
	nodes []*node
	// env is what the processes get beside the test's own.
	env []string

	mu struct {
		sync.Mutex
		processes map[int]string // names by process ID
	}
}

// node is a process of the fleet.
type node struct {
	fleet  *fleet
	name   string
	binary string
	addr   string // of clients
	health string // of /readyz
	joins  string // of other nodes
	extra  []string
	dir    string
	log    *os.File
	// database and links stand in front of what it reaches, and of what others reach.
	database, links *faultnet.Proxy

	proc   *exec.Cmd
	exited chan struct{}

	mu struct {
		sync.Mutex
		ready bool // as a load balancer sees it
	}
}

// newFleet prepares nodes, all with some flags.
func newFleet(t *testing.T, binary string, names []string, flags ...string) *fleet {
	t.Helper()
	f := &fleet{t: t, pg: pgtest.Start(t)}
	store, err := url.Parse(f.pg.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	var join []string
	for _, name := range names {
		n := &node{fleet: f, name: name, binary: binary, dir: t.TempDir()}
		n.addr, n.health, n.joins = faultnet.Address(t), faultnet.Address(t), faultnet.Address(t)
		n.database = faultnet.New(t, store.Host, nil)
		n.links = faultnet.New(t, n.joins, faultnet.Processes(f.processes))
		join = append(join, n.links.Addr())
		if n.log, err = os.Create(filepath.Join(n.dir, "log")); err != nil {
			t.Fatal(err)
		}
		f.nodes = append(f.nodes, n)
		t.Cleanup(func() {
			n.kill()
			_ = n.log.Close()
			if t.Failed() {
				t.Logf("the end of the log of %s:\n%s", n.name, n.tail())
			}
		})
	}
	for _, n := range f.nodes {
		own := *store
		own.Host = n.database.Addr()
		n.extra = append([]string{
			"--store", own.String(), "--data", filepath.Join(n.dir, "data"), "--listen", n.addr, "--metrics-listen", n.health,
			"--cluster-listen", n.joins, "--cluster.advertise", n.links.Addr(), "--join", strings.Join(join, ","),
			fmt.Sprintf("--server.partitions=%d", partitions), "--log.level=info",
		}, flags...)
	}
	balancing, end := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, n := range f.nodes {
		wg.Go(func() { n.balance(balancing) })
	}
	t.Cleanup(func() {
		end()
		wg.Wait()
	})
	return f
}

// processes names the nodes by process, for the proxies.
func (f *fleet) processes() map[int]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.mu.processes)
}

// process notes that a node runs, or no longer, if there is none.
func (f *fleet) process(n *node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.processes == nil {
		f.mu.processes = make(map[int]string)
	}
	maps.DeleteFunc(f.mu.processes, func(_ int, name string) bool { return name == n.name })
	if n.proc != nil {
		f.mu.processes[n.proc.Process.Pid] = n.name
	}
}

// part sets the fault of the way between two nodes, both directions.
func (f *fleet) part(a, b *node, fault faultnet.Fault) {
	a.links.Set(b.name, fault)
	b.links.Set(a.name, fault)
}

// isolate sets the fault of all ways between a node and the others.
func (f *fleet) isolate(n *node, fault faultnet.Fault) {
	for _, o := range f.nodes {
		if o != n {
			f.part(n, o, fault)
		}
	}
}

// pick is the node that a load balancer would choose; now and then any node, as a
// client that remembers it does.
func (f *fleet) pick(rng *rand.Rand) *node {
	if rng.IntN(20) == 0 {
		return f.nodes[rng.IntN(len(f.nodes))]
	}
	return f.choose(rng)
}

// choose is the node that a load balancer would choose.
func (f *fleet) choose(rng *rand.Rand) *node {
	begin := rng.IntN(len(f.nodes))
	for i := range f.nodes {
		if n := f.nodes[(begin+i)%len(f.nodes)]; n.isReady() {
			return n
		}
	}
	return f.nodes[begin]
}

// start starts all nodes.
func (f *fleet) start() {
	f.t.Helper()
	for _, n := range f.nodes {
		n.start()
	}
	f.await(f.nodes...)
}

// await waits until nodes are ready.
func (f *fleet) await(nodes ...*node) {
	f.t.Helper()
	end := time.Now().Add(liveness)
	for _, n := range nodes {
		for !n.isReady() {
			if time.Now().After(end) {
				n.hung("is not ready again: " + n.readiness())
			}
			select {
			case <-n.exited:
				f.t.Fatalf("%s ended by itself\n%s", n.name, n.tail())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
}

func (n *node) url() string { return "http://" + n.addr }

func (n *node) start() {
	n.fleet.t.Helper()
	n.proc = exec.Command(n.binary, append([]string{"serve", "--test-mode"}, n.extra...)...)
	n.proc.Env = append(os.Environ(), n.fleet.env...)
	n.proc.Stdout, n.proc.Stderr = n.log, n.log
	if err := n.proc.Start(); err != nil {
		n.fleet.t.Fatal(err)
	}
	n.exited = make(chan struct{})
	n.fleet.process(n)
	go func(p *exec.Cmd, exited chan struct{}) {
		_ = p.Wait()
		close(exited)
	}(n.proc, n.exited)
}

func (n *node) signal(s syscall.Signal) {
	n.fleet.t.Helper()
	if err := n.proc.Process.Signal(s); err != nil {
		n.fleet.t.Errorf("signal %v to %s: %v", s, n.name, err)
	}
}

// stop ends the process as an operator does.
func (n *node) stop() {
	n.fleet.t.Helper()
	n.signal(syscall.SIGTERM)
	select {
	case <-n.exited:
	case <-time.After(liveness):
		n.fleet.t.Fatalf("%s does not stop\n%s", n.name, n.tail())
	}
	n.gone()
}

// kill ends the process as a crash does.
func (n *node) kill() {
	if n.proc == nil {
		return
	}
	_ = n.proc.Process.Kill()
	<-n.exited
	n.gone()
}

func (n *node) gone() {
	n.proc = nil
	n.fleet.process(n)
}

// balance asks for readiness as a load balancer does.
func (n *node) balance(ctx context.Context) {
	const every, patience = 200 * time.Millisecond, time.Second
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	for ctx.Err() == nil {
		res, err := client.Get("http://" + n.health + "/readyz")
		if err == nil {
			_ = res.Body.Close()
		}
		n.mu.Lock()
		n.mu.ready = err == nil && res.StatusCode == http.StatusOK
		n.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

func (n *node) isReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.ready
}

// hung ends the test, and says what the process is doing.
func (n *node) hung(what string) {
	n.fleet.t.Helper()
	if n.proc != nil {
		n.signal(syscall.SIGQUIT)
		<-n.exited
		n.gone()
	}
	text, _ := os.ReadFile(n.log.Name())
	n.fleet.t.Fatalf("%s %s\n%s", n.name, what, text)
}

// readiness is what /readyz says.
func (n *node) readiness() string {
	client := &http.Client{Timeout: 2 * time.Second}
	res, err := client.Get("http://" + n.health + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s", res.StatusCode, b)
}

// complaints are lines of the log that no fault explains.
func (n *node) complaints() (out []string) {
	text, err := os.ReadFile(n.log.Name())
	if err != nil {
		return []string{err.Error()}
	}
	for line := range strings.SplitSeq(string(text), "\n") {
		if strings.Contains(line, "panic") || strings.Contains(line, "DATA RACE") {
			out = append(out, n.name+": "+line)
		}
	}
	return out
}

func (n *node) tail() string {
	text, _ := os.ReadFile(n.log.Name())
	const most = 6000
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}
