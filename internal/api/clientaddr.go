package api

import (
	"net/http"
	"net/netip"
	"strings"
)

// maxForwarded is the most hops of X-Forwarded-For that are looked at. Real chains
// have two or three.
const maxForwarded = 20

// clientAddr returns the address of the client, and whether the peer is a trusted
// proxy. Each proxy appends the address it saw, so the chain is believed from
// its right end, as far as the proxies are ours: the first address that is none of
// them is the client's, and what stands left of it the client may have
// invented.
func (d *Dispatcher) clientAddr(hr *http.Request) (addr netip.Addr, trusted bool) {
	peer, err := netip.ParseAddrPort(hr.RemoteAddr)
	if err != nil {
		return netip.Addr{}, false
	}
	addr = peer.Addr().Unmap().WithZone("")
	if !d.isProxy(addr) {
		return addr, false
	}
	hops := 0
	lines := hr.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		for line, more := lines[i], true; more; {
			var hop string
			j := strings.LastIndexByte(line, ',')
			hop, line, more = line[j+1:], line[:max(j, 0)], j >= 0
			next, ok := parseHop(strings.TrimSpace(hop))
			if hops++; !ok || hops > maxForwarded {
				return addr, true
			}
			addr = next
			if !d.isProxy(addr) {
				return addr, true
			}
		}
	}
	return addr, true
}

// parseHop reads an address as proxies write it, with or without a port.
func parseHop(hop string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(strings.Trim(hop, "[]")); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(hop); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}

func (d *Dispatcher) isProxy(a netip.Addr) bool {
	for _, p := range d.proxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
