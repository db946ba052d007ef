// Package egress decides to which addresses a store may connect. Endpoints are written by
// tenants, and an agent runs in the network of its node: without this filter it would be a
// way into what only the node can reach.
//
// The address is checked when the connection is made, after its name was resolved. So a
// name whose address changes between a check and its use, or a redirect, is no way around
// the filter. Proxies of the environment are a way around it; stores do not use them.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// Flag is the flag with which an administrator allows an endpoint. Errors name it.
const Flag = "--allow-s3-endpoint"

// dialTimeout bounds resolving a name and connecting to one of its addresses.
const dialTimeout = 15 * time.Second

// ErrRefused means that the policy does not allow the connection.
var ErrRefused = errors.New("the address is not allowed for an endpoint")

// A Policy says which addresses a store may connect to: all but those of the node itself
// (loopback, its interfaces), link-local and multicast addresses, the metadata services of
// clouds, and Denied. The zero value allows no exceptions. It may be used concurrently.
type Policy struct {
	// AllowEndpoints are exceptions, one of:
	//
	//	minio.storage.svc           a host, on all ports
	//	minio.storage.svc:9000      a host on one port
	//	*.s3.internal               all hosts of a domain, but not the domain itself
	//	10.1.2.3, 10.1.2.3:9000     an address; [fd00::1]:9000 for IPv6 with a port
	//	10.1.2.0/24                 addresses, unless they are in Denied
	//
	// A host is compared with the endpoint before it is resolved.
	AllowEndpoints []string

	// Denied are other addresses that are not allowed, such as those of the API server.
	Denied []netip.Prefix

	// Interfaces returns the addresses of the node; nil is [net.InterfaceAddrs].
	Interfaces func() ([]net.Addr, error)
}

// Validate returns an error if an entry of AllowEndpoints cannot be understood.
func (p Policy) Validate() error {
	var errs []error
	for _, entry := range p.AllowEndpoints {
		if _, err := parseEntry(entry); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// DialContext connects to an address such as "s3.example.com:443", if the policy allows
// the address to which its name resolves. Otherwise the error is [ErrRefused].
func (p Policy) DialContext(ctx context.Context, network, endpoint string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: dialTimeout,
		ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			resolved, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("%w: %q is no IP address", ErrRefused, address)
			}
			return p.Check(endpoint, resolved.Addr())
		},
	}
	return dialer.DialContext(ctx, network, endpoint)
}

// Check returns [ErrRefused] if a connection to an endpoint, a host and a port, may not go
// to the address to which the host resolves.
func (p Policy) Check(endpoint string, address netip.Addr) error {
	address = address.Unmap().WithZone("")
	isDenied := p.denied(address)
	if p.allows(endpoint, address, isDenied) {
		return nil
	}
	reason := "is on the list of denied addresses"
	if !isDenied {
		reason = p.specialReason(address)
	}
	if reason == "" {
		return nil
	}
	return fmt.Errorf("%w: %s has the address %s, which %s: use another endpoint, or ask an administrator to allow it with %s=%s",
		ErrRefused, endpoint, address, reason, Flag, endpoint)
}

func (p Policy) denied(address netip.Addr) bool {
	for _, a := range append(embedded(address), address) {
		for _, prefix := range p.Denied {
			if prefix.Masked().Contains(a) {
				return true
			}
		}
	}
	return false
}

// specialReason says why an address is not allowed without being denied, or "".
func (p Policy) specialReason(address netip.Addr) string {
	for _, a := range append(embedded(address), address) {
		if reason := reservedReason(a); reason != "" {
			return reason
		}
		if p.isOwn(a) {
			return "is one of the node itself"
		}
	}
	return ""
}

// isOwn is whether an address is one of the node's interfaces. Services that the node has
// for itself often listen on all of them.
func (p Policy) isOwn(address netip.Addr) bool {
	interfaces := p.Interfaces
	if interfaces == nil {
		interfaces = net.InterfaceAddrs
	}
	own, err := interfaces()
	if err != nil {
		return true // It cannot be ruled out.
	}
	for _, o := range own {
		if prefix, err := netip.ParsePrefix(o.String()); err == nil && prefix.Addr().Unmap() == address {
			return true
		}
	}
	return false
}

// An entry is an element of AllowEndpoints.
type entry struct {
	addresses netip.Prefix // of a range of addresses
	host      string       // a name or an IP address; ".s3.internal" for a domain
	port      string       // "" for all
}

func parseEntry(text string) (entry, error) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return entry{addresses: prefix.Masked()}, nil
	}
	if address, err := netip.ParseAddr(text); err == nil {
		return entry{host: address.Unmap().String()}, nil
	}
	host, port := text, ""
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, port = h, p
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return entry{host: address.Unmap().String(), port: port}, nil
	}
	name, isDomain := strings.CutPrefix(host, "*.")
	if name == "" || strings.ContainsAny(name, "/*:@ ") {
		return entry{}, fmt.Errorf("%s=%s: write a host, host:port, *.domain, an IP address or a range such as 10.1.2.0/24", Flag, text)
	}
	host = normalize(name)
	if isDomain {
		host = "." + host
	}
	return entry{host: host, port: port}, nil
}

func normalize(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

func (p Policy) allows(endpoint string, address netip.Addr, isDenied bool) bool {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return false
	}
	for _, text := range p.AllowEndpoints {
		e, err := parseEntry(text)
		if err != nil {
			continue // Validate reports it.
		}
		if e.addresses.IsValid() {
			if e.addresses.Contains(address) && !isDenied {
				return true
			}
			continue
		}
		if (e.port == "" || e.port == port) && e.matches(normalize(host), address) {
			return true
		}
	}
	return false
}

func (e entry) matches(host string, address netip.Addr) bool {
	if strings.HasPrefix(e.host, ".") {
		return strings.HasSuffix(host, e.host)
	}
	return e.host == host || e.host == address.String()
}
