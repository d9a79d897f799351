// Package config is the one description of what an operator can set: every key
// is a field of Config, and from its name and tags follow the key in the TOML
// file, the environment variable, the command-line flag, the example file and
// the check for unknown names. There is no second list to keep in step.
//
// Sources in rising order: the defaults (Default), the file, the environment,
// the flags. A key that is set anywhere replaces the value below it as a whole;
// lists are not merged.
//
// The package reads a file when Load is told to and does nothing else: no
// globals, no goroutines, no defaults taken from the machine. A Config is a
// plain value; after Load nobody changes it, so it may be shared freely.
package config

import (
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"github.com/hubbub-chat/hubbub/internal/event"
)

// Config is everything an operator can set. A nested struct is a section.
//
// Tags: toml is the name of the key inside its section; help is the text of the
// example file and of --help; flag is the short, stable flag of the key, beside
// its systematic flag (--section.key); enum lists the values allowed, of the key
// or of each element; arg is the placeholder in --help.
type Config struct {
	Server       Server       `toml:"server" help:"The process: addresses, data, its part in a deployment."`
	Cluster      Cluster      `toml:"cluster" help:"How the nodes of a deployment talk to each other. They share the store (server.store), and any number of them may serve it."`
	Registration Registration `toml:"registration" help:"Who may create an account, and how."`
	Rooms        Rooms        `toml:"rooms" help:"What rooms are like, if who creates them says nothing else."`
	SMTP         SMTP         `toml:"smtp" help:"Mail, to prove e-mail addresses: for sign-up, for new passwords, for signing in with one."`
	SSO          SSO          `toml:"sso" help:"Signing in with an account elsewhere, by OpenID Connect."`
	JWT          JWT          `toml:"jwt" help:"Signing in with a JSON web token that somebody else issued: for portals that know their users already. Users without a password prove who they are by a further token, in the stage org.matrix.login.jwt with the member token: issued (iat) after they were asked, and good once."`
	Limits       Limits       `toml:"limits" help:"What one caller may take. Beyond a rate limit the answer is 429 with the time to wait."`
	Presence     Presence     `toml:"presence" help:"Who is there, as others see it."`
	Retention    Retention    `toml:"retention" help:"How long what was said is kept. State of rooms stays."`
	Push         Push         `toml:"push" help:"Notifications of people who are not connected, sent to the gateways of their apps."`
	RTC          RTC          `toml:"rtc" help:"Calls of many people, which need a media server beside this one."`
	Media        Media        `toml:"media" help:"What users upload, and previews of links."`
	Directory    Directory    `toml:"directory" help:"Who finds whom."`
	Log          Log          `toml:"log" help:"What the process writes to its standard error."`
}

// Server is the process: addresses, data, its part in a deployment.
type Server struct {
	Name            string         `toml:"name" flag:"server-name" arg:"NAME" help:"The part after the colon in user IDs. It cannot be changed once the first account exists."`
	Listen          []string       `toml:"listen" flag:"listen" arg:"ADDR" help:"Addresses (host:port) that answer clients over HTTP and WebSocket. Port 0 takes a free one. Put a proxy that speaks TLS in front."`
	PublicBaseURL   string         `toml:"public_base_url" arg:"URL" help:"The URL at which clients reach the server, such as https://chat.example.org. Empty: the first listen address, over plain HTTP."`
	MetricsListen   string         `toml:"metrics_listen" flag:"metrics-listen" arg:"ADDR" help:"Address (host:port) of /metrics, /healthz and /readyz. Never the public one: what it tells is for operators. Empty: none."`
	Pprof           bool           `toml:"pprof" help:"Serve Go's profiler at /debug/pprof/ of the metrics address. A heap profile can contain secrets: keep that address private."`
	DataDir         string         `toml:"data_dir" flag:"data" arg:"DIR" help:"Directory of the embedded store and of the server's keys. It is created if need be; one process at a time may use it."`
	Store           string         `toml:"store" flag:"store" arg:"URL" help:"Where data is kept: \"embedded\" is a database inside the process, in data_dir; postgres://user:password@host:5432/database is a PostgreSQL database, and several of them, with commas between, share the partitions. Their order is fixed when the deployment is created."`
	Partitions      int            `toml:"partitions" arg:"N" help:"Units of ownership and order: a power of two. Fixed when the store is created; more than a deployment will ever have CPU cores is enough."`
	Roles           []Role         `toml:"roles" flag:"roles" enum:"edge,core,worker" arg:"ROLE" help:"What this process does: edge answers clients, core owns partitions, worker runs what follows the log (push, search, application services): where the partitions are, or, of those whose process is no worker, on any that is."`
	Join            []string       `toml:"join" flag:"join" arg:"ADDR" help:"Addresses (host:port, those of cluster.listen) of nodes of the deployment; one that is up is enough, and this node may be among them. Needs a store that nodes can share."`
	AppserviceFiles []string       `toml:"appservice_files" flag:"appservice" arg:"FILE" help:"Registration files of application services (bridges, bots), as the Matrix specification defines them."`
	TrustedProxies  []netip.Prefix `toml:"trusted_proxies" arg:"CIDR" help:"Networks of proxies whose X-Forwarded-For is believed. From anyone else it is ignored."`
	ShutdownGraceMS int            `toml:"shutdown_grace_ms" arg:"MS" help:"How long a stopping server waits for requests that are under way, in milliseconds."`
	TestMode        bool           `toml:"test_mode" flag:"test-mode" help:"For tests only, never with real users: open registration, weak passwords allowed, no rate limits, cheap password hashing, previews of 127.0.0.0/8, downloads without a token, push gateways in 127.0.0.0/8. Stands for these seven keys at its own place in the order of sources; one that is set in the same place or a later one wins."`
}

// ShutdownGrace is ShutdownGraceMS as a duration.
func (s *Server) ShutdownGrace() time.Duration {
	return time.Duration(s.ShutdownGraceMS) * time.Millisecond
}

// Cluster is how the nodes of a deployment talk to each other.
type Cluster struct {
	Listen    string `toml:"listen" flag:"cluster-listen" arg:"ADDR" help:"Address (host:port) that answers the other nodes, in a network that only they reach. Setting it, or nats_url, makes this process one node of several. Empty: a single process."`
	Advertise string `toml:"advertise" arg:"ADDR" help:"Address (host:port) at which the other nodes reach this one, if it is not listen. They tell it each other."`
	LeaseMS   int    `toml:"lease_ms" arg:"MS" help:"How long a node has its partitions without renewing that, in milliseconds: about as long a dead node's stand still. All nodes of a deployment have the same."`
	DrainMS   int    `toml:"drain_ms" arg:"MS" help:"How long a stopping node still answers while its readiness already says no, in milliseconds: as long as the load balancer takes to notice. Its sockets are closed over this time."`
	Secret    Secret `toml:"secret" arg:"SECRET" help:"What the nodes prove to each other that they belong together with. Empty: a secret that the deployment keeps in its store."`
	TLSCert   string `toml:"tls_cert" arg:"FILE" help:"Certificate (PEM) of this node, for TLS between the nodes. Needs tls_key and tls_ca."`
	TLSKey    string `toml:"tls_key" arg:"FILE" help:"Private key (PEM) of tls_cert."`
	TLSCA     string `toml:"tls_ca" arg:"FILE" help:"Certificates (PEM) of the authority that signed those of all nodes."`
	NATSURL   string `toml:"nats_url" arg:"URL" help:"NATS servers to use instead of one in each node: nats://user:password@host:4222, several with commas between."`
}

// Lease is LeaseMS as a duration.
func (c *Cluster) Lease() time.Duration { return time.Duration(c.LeaseMS) * time.Millisecond }

// Drain is DrainMS as a duration.
func (c *Cluster) Drain() time.Duration { return time.Duration(c.DrainMS) * time.Millisecond }

// Clustered reports whether this process is one node of several.
func (c *Config) Clustered() bool { return c.Cluster.Listen != "" || c.Cluster.NATSURL != "" }

// PostgresURLs are the databases that Store names, nil if it is another store.
func (s *Server) PostgresURLs() []string {
	const scheme, also = "postgres://", "postgresql://"
	var urls []string
	for _, part := range strings.Split(s.Store, ",") {
		switch {
		case strings.HasPrefix(part, scheme) || strings.HasPrefix(part, also):
			urls = append(urls, part)
		case len(urls) > 0: // a comma inside a URL
			urls[len(urls)-1] += "," + part
		default:
			return nil
		}
	}
	return urls
}

// HasRole reports whether the process has a role.
func (s *Server) HasRole(r Role) bool {
	for _, have := range s.Roles {
		if have == r {
			return true
		}
	}
	return false
}

// Role is a part a process plays in a deployment.
type Role string

// The roles.
const (
	// RoleEdge answers clients.
	RoleEdge Role = "edge"
	// RoleCore owns partitions.
	RoleCore Role = "core"
	// RoleWorker consumes the log: push, bots, search.
	RoleWorker Role = "worker"
)

// StoreEmbedded is the store inside the process.
const StoreEmbedded = "embedded"

// Registration says who may create an account, and how.
type Registration struct {
	Mode                RegistrationMode `toml:"mode" flag:"registration" enum:"open,token,closed" arg:"MODE" help:"open: anyone. token: whoever has a registration token; the first administrator uses the sign-up link that the first start prints. closed: nobody but by the shared secret."`
	SharedSecret        Secret           `toml:"shared_secret" flag:"registration-shared-secret" arg:"S" help:"Whoever has it can create any account, administrators too, whatever the mode. Empty: nobody can. On the command line other users of the machine can read it; prefer the file or the environment."`
	AllowWeakPasswords  bool             `toml:"allow_weak_passwords" flag:"allow-weak-passwords" help:"Accept passwords that are short or well known."`
	Guests              bool             `toml:"guests" help:"Let anyone in as a guest, without a password. Guests enter rooms that allow it, and may do little else."`
	RequireEmail        bool             `toml:"require_email" help:"Who registers has to prove an e-mail address. Needs smtp.addr."`
	CheapPasswordHashes bool             `toml:"cheap_password_hashes" help:"For tests only: hash passwords at the least cost, so that a stolen database gives them away."`
}

// SMTP says how mail is sent.
type SMTP struct {
	Addr      string       `toml:"addr" arg:"ADDR" help:"Address (host:port) of the server that takes mail. Empty: no mail is sent, and accounts have no e-mail addresses."`
	From      string       `toml:"from" arg:"ADDRESS" help:"The sender, such as Chat <chat@example.org>."`
	User      string       `toml:"user" arg:"NAME" help:"The name to log in with. Empty: no login."`
	Password  Secret       `toml:"password" arg:"S" help:"The password to log in with. It is sent only over TLS, or to this machine."`
	Security  SMTPSecurity `toml:"security" enum:"starttls,implicit,none" arg:"HOW" help:"starttls: the connection begins in clear and must change to TLS (port 587). implicit: TLS from the beginning (port 465). none: in clear, for a server on this machine."`
	NextLinks []string     `toml:"next_links" arg:"URL" help:"URLs that a link in a mail may lead on to, with all that is below them: where web clients are. The server's own address is always one."`
}

// SMTPSecurity says how the connection to the mail server is protected.
type SMTPSecurity string

// The kinds of protection.
const (
	// SMTPStartTLS demands STARTTLS.
	SMTPStartTLS SMTPSecurity = "starttls"
	// SMTPImplicit begins with TLS.
	SMTPImplicit SMTPSecurity = "implicit"
	// SMTPNone sends in clear.
	SMTPNone SMTPSecurity = "none"
)

// SSO says where people can sign in from.
type SSO struct {
	ProviderFiles []string `toml:"provider_files" arg:"FILE" help:"JSON files, one for each provider: id, name, issuer, client_id, client_secret; optional: icon, brand, scopes, user_claim, name_claim, existing_only. At the provider, the redirect URI is server.public_base_url with /_hubbub/v1/sso/callback/ and the id behind it."`
	Redirects     []string `toml:"redirects" arg:"URL" help:"URLs of clients that a browser is led back to without asking, with all that is below them. The server's own address is always one."`
}

// JWT says whose tokens sign in.
type JWT struct {
	Algorithms   []string `toml:"algorithms" arg:"ALG" help:"Algorithms that are taken, such as HS256, RS256, ES256 or EdDSA. None: no token signs in."`
	Secret       Secret   `toml:"secret" arg:"S" help:"The key of HS256, HS384 and HS512."`
	KeysFile     string   `toml:"keys_file" arg:"FILE" help:"A JWKS file with the public keys of all other algorithms."`
	Issuer       string   `toml:"issuer" arg:"ISS" help:"What iss has to be. Empty: anything."`
	Audiences    []string `toml:"audiences" arg:"AUD" help:"One of these has to be in aud. None: anything."`
	SubjectClaim string   `toml:"subject_claim" arg:"CLAIM" help:"The claim that holds the localpart of the user."`
	CreateUsers  bool     `toml:"create_users" help:"Make the account of a user who signs in the first time."`
}

// RegistrationMode says who may create an account.
type RegistrationMode string

// The registration modes.
const (
	// RegistrationOpen lets anyone register.
	RegistrationOpen RegistrationMode = "open"
	// RegistrationToken asks for a registration token.
	RegistrationToken RegistrationMode = "token"
	// RegistrationClosed refuses everyone without the shared secret.
	RegistrationClosed RegistrationMode = "closed"
)

// Rooms is what rooms are like, if who creates them says nothing else.
type Rooms struct {
	DefaultVersion string `toml:"default_version" enum:"12,11,10,9,8,7,6,5,4,3,2,1" arg:"N" help:"The version of rooms whose creator names none, 1 to 12. Before 12, creators stand in the power levels, which old tools expect."`
}

// Limits is what one caller may take. It has one field of type Rate for each
// rate class of the API, named as the class.
type Limits struct {
	NoRateLimits     bool           `toml:"no_rate_limits" flag:"no-rate-limits" help:"Switch every rate limit below off."`
	MaxRequestBytes  int64          `toml:"max_request_bytes" arg:"BYTES" help:"The largest body of a request, media aside."`
	MaxEventDelayMS  int64          `toml:"max_event_delay_ms" arg:"MS" help:"The longest time by which an event can be delayed, in milliseconds. 0: events cannot be delayed."`
	MaxDelayedEvents int            `toml:"max_delayed_events" arg:"N" help:"How many delayed events of one user may wait to be sent."`
	PreviewAllow     []netip.Prefix `toml:"preview_allow" flag:"preview-allow" arg:"CIDR" help:"Networks that URL previews may be fetched from although they are private or local."`

	Login        Rate `toml:"login" help:"Attempts to prove an identity, per address and per account."`
	Registration Rate `toml:"registration" help:"New accounts and checks whether a name is free, per address."`
	Send         Rate `toml:"send" help:"What makes others receive something, per user."`
	Join         Rate `toml:"join" help:"New rooms and changes of membership, per user."`
	Read         Rate `toml:"read" help:"Reads that cost more than a look-up, per user."`
	Write        Rate `toml:"write" help:"Writes that only the caller sees, per user."`
	Sync         Rate `toml:"sync" help:"Requests for what is new, per user."`
	Media        Rate `toml:"media" help:"Downloads and thumbnails, per user."`
	Preview      Rate `toml:"preview" help:"Previews of links, per user."`
}

// Media is what users upload, and previews of links.
type Media struct {
	Store          string `toml:"store" arg:"URL" help:"Where the bytes are kept: \"files\" is the directory media in data_dir; s3://bucket/prefix?endpoint=https://host&region=name is a bucket of an S3 server, of AWS without an endpoint."`
	StoreAccessKey Secret `toml:"store_access_key" arg:"KEY" help:"Access key of the S3 server. Empty: what the environment (AWS_ACCESS_KEY_ID and so on) or the role of the machine says."`
	StoreSecretKey Secret `toml:"store_secret_key" arg:"KEY" help:"Secret key of the S3 server. On the command line other users of the machine can read it; prefer the file or the environment."`
	MaxUploadBytes int64  `toml:"max_upload_bytes" arg:"BYTES" help:"The largest upload."`
	LegacyDownload bool   `toml:"legacy_download" help:"Answer the download endpoints of old clients, at which anyone who knows an address gets the media without an access token."`
	NoPreviews     bool   `toml:"no_previews" help:"Do not fetch pages that users link to, to show what they are about. They are never fetched from private or local networks, but for limits.preview_allow."`
}

// MediaFiles is the store of media in data_dir.
const MediaFiles = "files"

// Rate is a token bucket.
type Rate struct {
	PerSecond float64 `toml:"per_second" arg:"N" help:"How many a second, in the long run."`
	Burst     int     `toml:"burst" arg:"N" help:"How many at once."`
}

// Rates returns the limit of each rate class by its name, and nothing if rate
// limits are switched off.
func (l *Limits) Rates() map[string]Rate {
	if l.NoRateLimits {
		return map[string]Rate{}
	}
	return map[string]Rate{
		"login":        l.Login,
		"registration": l.Registration,
		"send":         l.Send,
		"join":         l.Join,
		"read":         l.Read,
		"write":        l.Write,
		"sync":         l.Sync,
		"media":        l.Media,
		"preview":      l.Preview,
	}
}

// Presence is whether others see who is there.
type Presence struct {
	Enabled bool `toml:"enabled" help:"Tell those who share a room who is online. Each change reaches many; switch it off where nobody looks."`
}

// Retention is how long what was said is kept.
type Retention struct {
	Enabled              bool  `toml:"enabled" help:"Remove old events: by what a room says (m.room.retention), within the bounds below, and by the default where it says nothing. Removed is removed."`
	DefaultMaxLifetimeMS int64 `toml:"default_max_lifetime_ms" arg:"MS" help:"How long events are kept in rooms that say nothing, in milliseconds. 0: for ever."`
	MinLifetimeMS        int64 `toml:"min_lifetime_ms" arg:"MS" help:"The shortest lifetime that a room can ask for, in milliseconds. 0: any."`
	MaxLifetimeMS        int64 `toml:"max_lifetime_ms" arg:"MS" help:"The longest lifetime that a room can ask for, in milliseconds. 0: any."`
	MediaMaxLifetimeMS   int64 `toml:"media_max_lifetime_ms" arg:"MS" help:"How long uploads are kept, in milliseconds, avatars among them. 0: for ever."`
	SweepIntervalMS      int64 `toml:"sweep_interval_ms" arg:"MS" help:"How often it is looked what is to be removed, in milliseconds. What has expired is not shown, removed or not."`
}

// Push is how people who are not connected are notified.
type Push struct {
	Allow               []netip.Prefix `toml:"allow" flag:"push-allow" arg:"CIDR" help:"Networks that push gateways may be in although they are private or local. If there are any, gateways in them may be reached without TLS."`
	ThreadSubscriptions bool           `toml:"thread_subscriptions" help:"In threads that a user is not subscribed to (MSC4306), only mentions notify. For deployments whose clients know of subscriptions: users of others would not notice what is said in threads."`
}

// RTC is what calls of many people need.
type RTC struct {
	LivekitURLs []string `toml:"livekit_urls" arg:"URL" help:"Addresses of services that give out tokens for a LiveKit media server. Clients are told of them."`
}

// Directory is who finds whom.
type Directory struct {
	SearchAllUsers bool `toml:"search_all_users" help:"Whoever searches for users finds everyone. Otherwise they find those who share a room with them or are in a room that anyone can join or read."`
}

// Log is what the process writes to its standard error.
type Log struct {
	Level  LogLevel  `toml:"level" flag:"log-level" enum:"debug,info,warn,error" arg:"LEVEL" help:"The least important line that is written: debug, info, warn or error. At info a request has a line if it failed or took a second; at debug each has one."`
	Format LogFormat `toml:"format" enum:"text,json" arg:"FORMAT" help:"text for people, json for machines."`
}

// LogLevel is the least important line that is written.
type LogLevel string

// The log levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// Slog is the level in the terms of log/slog.
func (l LogLevel) Slog() slog.Level {
	switch l {
	case LogDebug:
		return slog.LevelDebug
	case LogWarn:
		return slog.LevelWarn
	case LogError:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// LogFormat is the form of a log line.
type LogFormat string

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Secret is a value that must not reach a log or an error text: whatever prints
// it prints a placeholder.
type Secret string

const hidden = "(hidden)"

var _ slog.LogValuer = Secret("")

// String says whether there is a secret, not which.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String, for %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue is String, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText is String, so that no encoder writes the secret either.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Default returns the configuration of a server that nobody configured: it
// listens on this machine only, and the first administrator invites the rest.
func Default() Config {
	return Config{
		Server: Server{
			Name:            "localhost",
			Listen:          []string{"127.0.0.1:8008"},
			MetricsListen:   "127.0.0.1:9008",
			DataDir:         "./data",
			Store:           StoreEmbedded,
			Partitions:      64,
			Roles:           []Role{RoleEdge, RoleCore, RoleWorker},
			ShutdownGraceMS: 10_000,
		},
		Registration: Registration{Mode: RegistrationToken},
		Rooms:        Rooms{DefaultVersion: event.DefaultVersion},
		SMTP:         SMTP{Security: SMTPStartTLS},
		JWT:          JWT{SubjectClaim: "sub", CreateUsers: true},
		Limits: Limits{
			MaxRequestBytes:  1 << 20,
			MaxEventDelayMS:  24 * 60 * 60 * 1000,
			MaxDelayedEvents: 100,
			Login:            Rate{PerSecond: 0.2, Burst: 10},
			Registration:     Rate{PerSecond: 0.1, Burst: 20},
			Send:             Rate{PerSecond: 10, Burst: 50},
			Join:             Rate{PerSecond: 1, Burst: 20},
			Read:             Rate{PerSecond: 20, Burst: 100},
			Write:            Rate{PerSecond: 10, Burst: 100},
			Sync:             Rate{PerSecond: 20, Burst: 100},
			Media:            Rate{PerSecond: 50, Burst: 500},
			Preview:          Rate{PerSecond: 1, Burst: 30},
		},
		Cluster:   Cluster{LeaseMS: 8000, DrainMS: 5000},
		Media:     Media{Store: MediaFiles, MaxUploadBytes: 100 << 20},
		Presence:  Presence{Enabled: true},
		Retention: Retention{SweepIntervalMS: 60 * 60 * 1000},
		Log:       Log{Level: LogInfo, Format: LogText},
	}
}
