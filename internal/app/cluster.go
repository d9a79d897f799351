package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hubbub-chat/hubbub/internal/bus"
	"github.com/hubbub-chat/hubbub/internal/bus/membus"
	"github.com/hubbub-chat/hubbub/internal/bus/natsbus"
	"github.com/hubbub-chat/hubbub/internal/cluster"
	"github.com/hubbub-chat/hubbub/internal/config"
	"github.com/hubbub-chat/hubbub/internal/ids"
	"github.com/hubbub-chat/hubbub/internal/obs"
	"github.com/hubbub-chat/hubbub/internal/partition"
)

// findOwner is how long a command looks for the owner of its partition beyond the lease
// of a node that died.
const findOwner = 2 * time.Second

// nodeBus is the way to the other nodes, and what this one is called there.
type nodeBus struct {
	bus.Bus
	id ids.NodeID
	// stopping: this one is about to end, and others should be asked.
	stopping atomic.Bool
}

// openBus opens the way to the other nodes, if there are any. What keeps strangers
// out comes from the store, which all nodes of a deployment share.
func (s *Server) openBus(ctx context.Context) (err error) {
	if !s.cfg.Clustered() {
		s.bus.Bus = membus.New()
		return nil
	}
	if s.cfg.Server.Store == config.StoreEmbedded {
		return errors.New("cluster.listen or cluster.nats_url is set, and the embedded store serves one process only: set server.store to a PostgreSQL that all nodes use, or remove it")
	}
	if s.cfg.Media.Store == config.MediaFiles {
		s.log.Warn("media is kept in files of this node, which the other nodes do not see: set media.store to an S3 bucket, or let all nodes share the directory media of server.data_dir")
	}
	c := s.cfg.Cluster
	name, key := s.store.secrets.Key("cluster/name"), s.store.secrets.Key("cluster/secret")
	opts := natsbus.Options{
		Deployment: hex.EncodeToString(name[:8]), Node: string(s.bus.id), URL: c.NATSURL, Listen: c.Listen,
		Advertise: c.Advertise, Join: s.cfg.Server.Join, Secret: c.Secret.Reveal(), Log: s.log,
	}
	if opts.Secret == "" {
		opts.Secret = hex.EncodeToString(key[:])
	}
	if c.TLSCert != "" {
		if opts.TLS, err = clusterTLS(c); err != nil {
			return err
		}
	}
	b, err := natsbus.Open(ctx, opts)
	if err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	s.bus.Bus = b
	if addr := b.Addr(); addr != "" {
		s.log.Info("other nodes join at", "addr", addr)
	}
	return nil
}

// clusterTLS is how nodes prove themselves to each other, on both sides.
func clusterTLS(c config.Cluster) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("cluster.tls_cert: %w", err)
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("cluster.tls_ca: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("cluster.tls_ca holds no certificate in PEM form")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{cert}, RootCAs: pool, ClientCAs: pool,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}

// clusterOptions adds to what a node is what it is among others.
func (s *Server) clusterOptions(o cluster.Options, wire *partition.Wire) cluster.Options {
	o.Wire, o.Exclusive = wire, s.store.fit != nil
	o.Worker = s.cfg.Server.HasRole(config.RoleWorker)
	if s.cfg.Server.Store != config.StoreEmbedded {
		// A partition that moves to another database gets another owner.
		o.Search = cluster.DefaultLeaseTTL + findOwner
	}
	if s.cfg.Clustered() {
		o.LeaseTTL = s.cfg.Cluster.Lease()
		o.Balance, o.Search, o.Fit = true, o.LeaseTTL+findOwner, s.store.fit
		o.EdgeOnly = !s.cfg.Server.HasRole(config.RoleCore)
	}
	return o
}

// followOthers follows what runs on nodes that are no workers.
func (s *Server) followOthers() {
	if s.cfg.Clustered() {
		s.node.Follow(s.consumers)
	}
}

// notAlone says what to do about a node that runs the partitions and is not heard of.
func (s *Server) notAlone(err error) error {
	switch {
	case !errors.Is(err, cluster.ErrOccupied):
		return fmt.Errorf("partitions: %w", err)
	case s.cfg.Clustered():
		return fmt.Errorf("partitions: %w: server.store is in use by another node, which is not heard of: name it in server.join and use certificates (cluster.tls_cert) as it does, or, if it is another deployment, use another database", err)
	default:
		return fmt.Errorf("partitions: %w: server.store is in use by another process: stop it, or set cluster.listen and server.join in both, so that they share the work", err)
	}
}

// ClusterAddr is where other nodes join this one, "" if there are none or their
// servers are outside.
func (s *Server) ClusterAddr() string {
	if b, ok := s.bus.Bus.(*natsbus.Bus); ok {
		return b.Addr()
	}
	return ""
}

// countOwned tells the operator what this node runs.
func (s *Server) countOwned() {
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: obs.Namespace, Subsystem: "partition", Name: "owned", Help: "Partitions that this node runs.",
	}, func() float64 { return float64(s.node.Owned()) }))
}

const sessionsSubject = "sessions"

// ended tells the nodes that tokens of a user are not what they were.
type ended struct {
	Node ids.NodeID `json:"node"`
	User ids.UserID `json:"user"`
	// Devices have lost their tokens; if there are none, what the user may do has
	// changed.
	Devices []ids.DeviceID `json:"devices,omitempty"`
}

var _ bus.Payload = (*ended)(nil)

// MarshalBinary implements bus.Payload.
func (e *ended) MarshalBinary() ([]byte, error) { return json.Marshal(e) }

// tellEnded tells the other nodes. It is a hint: what they remember of a token runs
// out within seconds.
func (s *Server) tellEnded(user ids.UserID, devices []ids.DeviceID) {
	if !s.cfg.Clustered() {
		return
	}
	if err := s.bus.Publish(sessionsSubject, &ended{s.bus.id, user, devices}); err != nil {
		s.log.Warn("tell other nodes of ended sessions", "user", user, "error", err)
	}
}

// Of several nodes, one whose notice of an ended session got lost lets its sockets be
// for both times together, and answers requests for the first: within the 5 s that are
// promised. Alone there is no notice that could be lost, and the time bounds only how
// much is looked up: for each open socket, again and again.
const (
	believeTokens      = 2800 * time.Millisecond
	recheckTokens      = 2 * time.Second
	believeTokensAlone = time.Minute
)

// recheck is how often sockets look at their token again, 0 for as often as alone.
func (s *Server) recheck() time.Duration {
	if !s.cfg.Clustered() {
		s.tokens.Believe(believeTokensAlone)
		return 0
	}
	s.tokens.Believe(believeTokens)
	return recheckTokens
}

// hearEnded does what other nodes tell.
func (s *Server) hearEnded() error {
	if !s.cfg.Clustered() {
		return nil
	}
	_, err := s.bus.Subscribe(sessionsSubject, func(p bus.Payload) {
		var e ended
		raw, ok := p.(bus.Raw)
		if !ok || json.Unmarshal(raw, &e) != nil || e.Node == s.bus.id {
			return
		}
		s.tokens.Forget(e.User)
		if len(e.Devices) == 0 {
			s.gateway.RecheckUser(e.User)
		}
		for _, d := range e.Devices {
			s.gateway.CloseDevice(e.User, d, closeTokenRevoked)
		}
		s.api.EndPolls(e.User, e.Devices)
	})
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	return nil
}

// drain leaves the work of a node that is about to stop to the others, while it still
// answers: load balancers and sockets are told to go elsewhere, partitions are handed
// over, and requests that come meanwhile are served. One process alone has nobody to
// leave anything to.
func (s *Server) drain() {
	s.bus.stopping.Store(true)
	if !s.cfg.Clustered() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Cluster.Drain())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.gateway.Drain(ctx) })
	s.node.Leave()
	<-ctx.Done()
	wg.Wait()
}
