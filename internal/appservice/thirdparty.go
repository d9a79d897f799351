package appservice

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// protocolLifetime is how long it is believed what a service said about a
	// protocol, and protocolRetry how long it is not asked again after it said
	// nothing: clients ask at every start.
	protocolLifetime = time.Hour
	protocolRetry    = 30 * time.Second
)

// knownProtocol is what the services said about a protocol, nil for nothing.
type knownProtocol struct {
	value jsontext.Value
	until time.Time
}

// Instance is a network that a service bridges to, as its third_party_instance_id
// names it. It says whose directory of rooms is meant.
type Instance struct{ Service, Network string }

const instanceSeparator = "|"

// String is the third_party_instance_id.
func (i Instance) String() string { return i.Service + instanceSeparator + i.Network }

// ParseInstance reads a third_party_instance_id.
func ParseInstance(s string) (Instance, bool) {
	for i := range len(s) {
		if s[i] == instanceSeparator[0] {
			return Instance{s[:i], s[i+1:]}, i > 0 && i+1 < len(s)
		}
	}
	return Instance{}, false
}

// Protocols lists the protocols that services know with what they say about them.
// A service that says nothing is passed over.
// spec: client-server §GET /thirdparty/protocols.
func (c *Client) Protocols(ctx context.Context) map[string]jsontext.Value {
	out := make(map[string]jsontext.Value)
	var names []string
	for _, s := range c.services.All() {
		for _, p := range s.Protocols {
			if !slices.Contains(names, p) {
				names = append(names, p)
			}
		}
	}
	values := make([]jsontext.Value, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { values[i] = c.Protocol(ctx, name) })
	}
	wg.Wait()
	for i, name := range names {
		if values[i] != nil {
			out[name] = values[i]
		}
	}
	return out
}

// Protocol returns what services say about a protocol, nil if there is none of
// that name or nobody says anything. The instances of all services that know it
// are joined. spec: client-server §GET /thirdparty/protocol/{protocol}.
func (c *Client) Protocol(ctx context.Context, name string) jsontext.Value {
	services := c.speaking(name)
	if len(services) == 0 {
		return nil // not kept: the name is the caller's
	}
	now := c.clock.Now()
	c.mu.Lock()
	k := c.mu.protocols[name]
	c.mu.Unlock()
	if k != nil && now.Before(k.until) {
		return k.value
	}
	replies := c.askAll(ctx, services, "/protocol/"+segment(name), nil)
	k = &knownProtocol{value: mergeProtocols(services, replies), until: now.Add(protocolLifetime)}
	if k.value == nil || slices.ContainsFunc(replies, func(b jsontext.Value) bool { return b == nil }) {
		k.until = now.Add(protocolRetry)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.protocols[name] = k
	return k.value
}

// speaking are the services that can be asked about a protocol; all for "".
func (c *Client) speaking(protocol string) []*Service {
	var out []*Service
	for _, s := range c.services.All() {
		if s.URL != "" && len(s.Protocols) > 0 && (protocol == "" || slices.Contains(s.Protocols, protocol)) {
			out = append(out, s)
		}
	}
	return out
}

// Knows reports whether a service knows a protocol.
func (c *Client) Knows(protocol string) bool {
	return protocol != "" && len(c.speaking(protocol)) > 0
}

// askAll asks services side by side. An answer that is none, or no JSON, is nil.
func (c *Client) askAll(ctx context.Context, services []*Service, path string, query url.Values) []jsontext.Value {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	out := make([]jsontext.Value, len(services))
	var wg sync.WaitGroup
	for i, s := range services {
		wg.Go(func() {
			r, err := c.do(ctx, s, http.MethodGet, "/_matrix/app/v1/thirdparty"+path, "/_matrix/app/unstable/thirdparty"+path, nil)
			if err == nil && r.ok() && jsontext.Value(r.body).IsValid() {
				out[i] = r.body
			}
		})
	}
	wg.Wait()
	return out
}

// mergeProtocols joins what services say about one protocol: what the first says,
// with the instances of all, each named.
func mergeProtocols(services []*Service, replies []jsontext.Value) jsontext.Value {
	var first map[string]jsontext.Value
	instances := []map[string]jsontext.Value{}
	for i, raw := range replies {
		var p map[string]jsontext.Value
		if raw == nil || json.Unmarshal(raw, &p) != nil || p == nil {
			continue
		}
		if first == nil {
			first = p
		}
		var list []map[string]jsontext.Value
		if json.Unmarshal(p["instances"], &list) != nil {
			continue
		}
		for _, in := range list {
			var network string
			if json.Unmarshal(in["network_id"], &network) != nil || network == "" {
				continue
			}
			in["instance_id"] = encode(Instance{services[i].ID, network}.String())
			instances = append(instances, in)
		}
	}
	if first == nil {
		return nil
	}
	for _, needed := range []struct{ name, empty string }{
		{"user_fields", "[]"}, {"location_fields", "[]"}, {"field_types", "{}"}, {"icon", `""`},
	} {
		if first[needed.name] == nil {
			first[needed.name] = jsontext.Value(needed.empty)
		}
	}
	first["instances"] = encode(instances)
	return encode(first)
}

func encode(v any) jsontext.Value {
	b, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		return nil // texts and JSON values that were valid before
	}
	return b
}

// Kind is what is looked for in third-party networks.
type Kind string

// The kinds.
const (
	KindUser     Kind = "user"
	KindLocation Kind = "location"
)

// id is the member that each result of the kind has.
func (k Kind) id() string {
	if k == KindUser {
		return "userid"
	}
	return "alias"
}

// Lookup asks the services for users or places: those of a protocol, with the
// query's fields, or for protocol "" those that have the query's user ID or alias.
// spec: client-server §GET /thirdparty/user/{protocol} and the others.
func (c *Client) Lookup(ctx context.Context, k Kind, protocol string, query url.Values) []jsontext.Value {
	path := "/" + string(k)
	if protocol != "" {
		path += "/" + segment(protocol)
	}
	out := []jsontext.Value{}
	for _, raw := range c.askAll(ctx, c.speaking(protocol), path, query) {
		var list []jsontext.Value
		if raw == nil || json.Unmarshal(raw, &list) != nil {
			continue
		}
		for _, v := range list {
			if k.valid(v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// valid reports whether a result has what clients rely on.
func (k Kind) valid(v jsontext.Value) bool {
	var m map[string]jsontext.Value
	if v.Kind() != '{' || json.Unmarshal(v, &m) != nil {
		return false
	}
	return m[k.id()].Kind() == '"' && m["protocol"].Kind() == '"' && m["fields"].Kind() == '{'
}
