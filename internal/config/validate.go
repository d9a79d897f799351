package config

import (
	"fmt"
	"math"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hubbub-chat/hubbub/internal/ids"
)

const (
	// maxServerName leaves room in the 255 bytes of a user ID for "@", ":" and
	// a localpart of some length. spec: appendices §User Identifiers.
	maxServerName = 200
	// minRequestBytes lets every event through (64 KiB) with its JSON around it.
	minRequestBytes = 128 << 10
	// maxRequestBytes is what a process can hold of many requests at once.
	maxRequestBytes = 64 << 20
	// minUploadBytes lets small pictures through, maxUploadBytes is what one request
	// can carry in its hour on a fast line.
	minUploadBytes = 64 << 10
	maxUploadBytes = 16 << 30
	// minLeaseMS is a few round trips to a busy database; whoever would wait longer than
	// maxLeaseMS for a dead node's partitions has no need of several nodes.
	minLeaseMS = 1000
	maxLeaseMS = 5 * 60 * 1000
	// maxShutdownGraceMS is beyond the patience of every supervisor.
	maxShutdownGraceMS = 10 * 60 * 1000
	// maxEventDelayMS is a year: who plans further ahead has a calendar.
	maxEventDelayMS = 366 * 24 * 60 * 60 * 1000
	// maxLifetimeMS is a century, as good as for ever; minSweepMS keeps a server
	// from doing nothing but looking.
	maxLifetimeMS = 100 * 366 * 24 * 60 * 60 * 1000
	minSweepMS    = 50
	// maxDelayedEvents keeps the list of one user's events a small row.
	maxDelayedEvents = 1000
)

// Validate checks what the types cannot: ranges, forms and keys that exclude
// each other. The error is an *Error.
func (c *Config) Validate() error {
	if problems := c.problems(); len(problems) > 0 {
		return &Error{Problems: problems}
	}
	return nil
}

// checker gathers problems.
type checker struct{ problems []Problem }

func (k *checker) add(key, format string, args ...any) {
	k.problems = append(k.problems, Problem{Key: key, Text: fmt.Sprintf(format, args...)})
}

func (c *Config) problems() []Problem {
	var k checker
	c.Server.check(&k)
	c.checkCluster(&k)
	c.Registration.check(&k)
	k.oneOf("rooms.default_version", c.Rooms.DefaultVersion)
	c.SMTP.check(&k)
	c.Limits.check(&k)
	c.Retention.check(&k)
	for _, u := range c.RTC.LivekitURLs {
		if err := checkBaseURL(u); err != nil {
			k.add("rtc.livekit_urls", "%s", err)
		}
	}
	c.Media.check(&k)
	k.oneOf("log.level", string(c.Log.Level))
	k.oneOf("log.format", string(c.Log.Format))
	return k.problems
}

// oneOf repeats the check of Field.set for a Config that was built in code.
func (k *checker) oneOf(key, value string) {
	fields := Fields()
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Key == key })
	if err := fields[i].checkEnum(value); err != nil {
		k.add(key, "%s", err)
	}
}

func (s *Server) check(k *checker) {
	if err := checkServerName(s.Name); err != nil {
		k.add("server.name", "%s", err)
	}
	s.checkAddresses(k)
	if s.PublicBaseURL != "" {
		if err := checkBaseURL(s.PublicBaseURL); err != nil {
			k.add("server.public_base_url", "%s", err)
		}
	}
	if s.DataDir == "" {
		k.add("server.data_dir", "is empty; name a directory that the server may write to")
	}
	if n := s.Partitions; n < 1 || n > ids.MaxPartitions || n&(n-1) != 0 {
		k.add("server.partitions", "is %d; use a power of two from 1 to %d, such as 64", n, ids.MaxPartitions)
	}
	if s.ShutdownGraceMS < 0 || s.ShutdownGraceMS > maxShutdownGraceMS {
		k.add("server.shutdown_grace_ms", "is %d; use 0 to %d", s.ShutdownGraceMS, maxShutdownGraceMS)
	}
	if slices.Contains(s.AppserviceFiles, "") {
		k.add("server.appservice_files", "holds an empty name; remove it")
	}
	s.checkDeployment(k)
}

func (s *Server) checkAddresses(k *checker) {
	if len(s.Listen) == 0 {
		k.add("server.listen", "is empty; give at least one address, such as 127.0.0.1:8008")
	}
	for i, a := range s.Listen {
		if err := checkAddress(a); err != nil {
			k.add("server.listen", "%s", err)
		}
		if slices.Contains(s.Listen[:i], a) && !strings.HasSuffix(a, ":0") {
			k.add("server.listen", "holds %q twice; remove one", a)
		}
	}
	if s.MetricsListen == "" {
		return
	}
	if err := checkAddress(s.MetricsListen); err != nil {
		k.add("server.metrics_listen", "%s", err)
	}
	if slices.Contains(s.Listen, s.MetricsListen) && !strings.HasSuffix(s.MetricsListen, ":0") {
		k.add("server.metrics_listen", "is a public address too; give it one of its own, such as 127.0.0.1:9008")
	}
}

// checkDeployment holds the rules between the store, the roles and the others.
func (s *Server) checkDeployment(k *checker) {
	if s.Store != StoreEmbedded && s.PostgresURLs() == nil {
		// The value is not repeated: a store's URL can hold a password.
		k.add("server.store", "names a store that this version does not have; use %q or postgres://user:password@host/database", StoreEmbedded)
	}
	for i, r := range s.Roles {
		k.oneOf("server.roles", string(r))
		if slices.Contains(s.Roles[:i], r) {
			k.add("server.roles", "holds %q twice; remove one", r)
		}
	}
}

// checkCluster holds the rules between the nodes, the store and the roles.
func (c *Config) checkCluster(k *checker) {
	s := &c.Server
	if !c.Clustered() {
		for _, r := range []Role{RoleEdge, RoleCore, RoleWorker} {
			if !s.HasRole(r) {
				k.add("server.roles", "lacks %q: nobody else can play it, as this process is the only one; add it, or set cluster.listen", r)
			}
		}
		if len(s.Join) > 0 {
			k.add("server.join", "needs an address for the other nodes to reach this one; set cluster.listen")
		}
		return
	}
	if len(s.Roles) == 0 {
		k.add("server.roles", "is empty: this process would do nothing; use one or more of edge, core, worker")
	}
	for _, a := range s.Join {
		if err := checkAddress(a); err != nil {
			k.add("server.join", "%s", err)
		}
	}
	for key, a := range map[string]string{"cluster.listen": c.Cluster.Listen, "cluster.advertise": c.Cluster.Advertise} {
		if a == "" {
			continue
		}
		if err := checkAddress(a); err != nil {
			k.add(key, "%s", err)
		}
	}
	if c.Cluster.LeaseMS < minLeaseMS || c.Cluster.LeaseMS > maxLeaseMS {
		k.add("cluster.lease_ms", "is %d; use %d to %d", c.Cluster.LeaseMS, minLeaseMS, maxLeaseMS)
	}
	if c.Cluster.DrainMS < 0 || c.Cluster.DrainMS > maxShutdownGraceMS {
		k.add("cluster.drain_ms", "is %d; use 0 to %d", c.Cluster.DrainMS, maxShutdownGraceMS)
	}
	if n := c.Cluster; (n.TLSCert == "") != (n.TLSKey == "") || (n.TLSCert == "") != (n.TLSCA == "") {
		k.add("cluster.tls_cert", "needs tls_key and tls_ca; set all three or none")
	}
	if c.Cluster.NATSURL != "" && (c.Cluster.Listen != "" || len(s.Join) > 0) {
		k.add("cluster.nats_url", "names servers of its own; remove cluster.listen and server.join, or it")
	}
}

func (r *Retention) check(k *checker) {
	for key, ms := range map[string]int64{
		"default_max_lifetime_ms": r.DefaultMaxLifetimeMS, "min_lifetime_ms": r.MinLifetimeMS,
		"max_lifetime_ms": r.MaxLifetimeMS, "media_max_lifetime_ms": r.MediaMaxLifetimeMS,
	} {
		if ms < 0 || ms > maxLifetimeMS {
			k.add("retention."+key, "is %d; use 0 to %d", ms, int64(maxLifetimeMS))
		}
	}
	if r.MaxLifetimeMS != 0 && r.MinLifetimeMS > r.MaxLifetimeMS {
		k.add("retention.min_lifetime_ms", "is %d, above max_lifetime_ms = %d; lower it", r.MinLifetimeMS, r.MaxLifetimeMS)
	}
	if n := r.SweepIntervalMS; n < minSweepMS || n > maxLifetimeMS {
		k.add("retention.sweep_interval_ms", "is %d; use %d to %d", n, minSweepMS, int64(maxLifetimeMS))
	}
}

func (r *Registration) check(k *checker) {
	k.oneOf("registration.mode", string(r.Mode))
}

func (m *Media) check(k *checker) {
	if m.Store != MediaFiles {
		// The value is not repeated: people write keys into URLs.
		if u, err := url.Parse(m.Store); err != nil || u.Scheme != "s3" || u.Host == "" || u.User != nil {
			k.add("media.store", "is neither %q nor s3://bucket/prefix?endpoint=https://host&region=name", MediaFiles)
		}
	}
	if n := m.MaxUploadBytes; n < minUploadBytes || n > maxUploadBytes {
		k.add("media.max_upload_bytes", "is %d; use %d to %d", n, minUploadBytes, int64(maxUploadBytes))
	}
}

func (m *SMTP) check(k *checker) {
	k.oneOf("smtp.security", string(m.Security))
	if m.Addr == "" {
		return
	}
	for _, link := range m.NextLinks {
		if u, err := url.Parse(link); err != nil || u.Scheme == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			k.add("smtp.next_links", "holds %q, which is not a URL; write it as https://app.example.org", link)
		}
	}
	if host, _, err := net.SplitHostPort(m.Addr); err != nil || host == "" || checkAddress(m.Addr) != nil {
		k.add("smtp.addr", "is not an address; write host:port, such as mail.example.org:587")
	} else if m.User != "" && m.Security == SMTPNone && !isLocal(host) {
		k.add("smtp.security", "would send the password in clear; use starttls or implicit")
	}
	if _, err := mail.ParseAddress(m.From); m.From != "" && err != nil {
		k.add("smtp.from", "is not a sender; write it as Chat <chat@example.org>")
	}
	if (m.User == "") != (m.Password == "") {
		k.add("smtp.password", "and smtp.user go together; set both or none")
	}
}

// isLocal reports whether a host is this machine.
func isLocal(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func (l *Limits) check(k *checker) {
	if n := l.MaxRequestBytes; n < minRequestBytes || n > maxRequestBytes {
		k.add("limits.max_request_bytes", "is %d; use %d to %d", n, minRequestBytes, maxRequestBytes)
	}
	if n := l.MaxEventDelayMS; n < 0 || n > maxEventDelayMS {
		k.add("limits.max_event_delay_ms", "is %d; use 0 to %d", n, int64(maxEventDelayMS))
	}
	if n := l.MaxDelayedEvents; n < 1 || n > maxDelayedEvents {
		k.add("limits.max_delayed_events", "is %d; use 1 to %d, or limits.max_event_delay_ms = 0 for none at all", n, maxDelayedEvents)
	}
	all := *l
	all.NoRateLimits = false
	rates := all.Rates()
	for _, s := range sections() {
		rate, ok := rates[strings.TrimPrefix(s.name, "limits.")]
		if !ok {
			continue
		}
		if x := rate.PerSecond; math.IsNaN(x) || math.IsInf(x, 0) || x <= 0 {
			k.add(s.name+".per_second", "is %v; use a number above 0, or limits.no_rate_limits for none at all", x)
		}
		if rate.Burst < 1 {
			k.add(s.name+".burst", "is %d; use 1 or more, or limits.no_rate_limits for none at all", rate.Burst)
		}
	}
}

// dnsName is a host name of the specification's server name grammar.
var dnsName = regexp.MustCompile(`^[0-9A-Za-z.-]+$`)

// checkServerName checks a server name: a host name or an IP address, and a port
// if need be. spec: appendices §Server Name.
func checkServerName(name string) error {
	fix := "use a host name such as chat.example.org"
	switch {
	case name == "":
		return fmt.Errorf("is empty; %s", fix)
	case len(name) > maxServerName:
		return fmt.Errorf("is longer than %d bytes; %s", maxServerName, fix)
	case strings.Contains(name, "/"):
		return fmt.Errorf("is %q, which looks like a URL; %s", name, fix)
	}
	host, port := name, ""
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.HasSuffix(name, "]") {
		host, port = name[:i], name[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return fmt.Errorf("is %q, whose port is not a number from 1 to 65535; %s", name, fix)
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") || !a.Is6() || a.Zone() != "" {
			return fmt.Errorf("is %q, which is not an IPv6 address in brackets; %s", name, fix)
		}
		return nil
	}
	if !dnsName.MatchString(host) {
		return fmt.Errorf("is %q; only letters, digits, dots and dashes may be in it; %s", name, fix)
	}
	return nil
}

// checkAddress checks an address to listen on. An empty host means
// all, port 0 a free one.
func checkAddress(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return fmt.Errorf("%q is not an address; write host:port, such as 127.0.0.1:8008", a)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535; write host:port, such as 127.0.0.1:8008", a)
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !dnsName.MatchString(host) {
		return fmt.Errorf("%q has no host name or IP address before its port; write host:port, such as 127.0.0.1:8008", a)
	}
	return nil
}

func checkBaseURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return fmt.Errorf("is not a URL of http or https; write it as https://chat.example.org")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("holds more than host and path; write it as https://chat.example.org")
	case strings.HasSuffix(text, "/"):
		return fmt.Errorf("ends in a slash; write %s", strings.TrimRight(text, "/"))
	}
	return nil
}
