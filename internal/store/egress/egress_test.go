package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	node := func() ([]net.Addr, error) {
		return []net.Addr{&net.IPNet{IP: net.ParseIP("10.0.0.7"), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("2001:db8::7"), Mask: net.CIDRMask(64, 128)}}, nil
	}
	tests := map[string]struct {
		endpoint, address string
		allow             []string
		refused           string // what the error says; "" if it is allowed
	}{
		"an address of the internet is allowed":                  {"s3.example.com:443", "93.184.216.34", nil, ""},
		"a private address is allowed":                           {"minio:9000", "10.1.2.3", nil, ""},
		"an IPv6 address is allowed":                             {"s3.example.com:443", "2001:db8::1", nil, ""},
		"another node is allowed":                                {"minio:9000", "10.0.0.8", nil, ""},
		"loopback is refused":                                    {"evil.example.com:6443", "127.0.0.1", nil, "loopback"},
		"all of the loopback network is refused":                 {"evil.example.com:6443", "127.99.0.1", nil, "loopback"},
		"IPv6 loopback is refused":                               {"evil.example.com:6443", "::1", nil, "loopback"},
		"loopback as an IPv4-mapped address is refused":          {"e:1", "::ffff:127.0.0.1", nil, "loopback"},
		"loopback as an IPv4-compatible address is refused":      {"e:1", "::127.0.0.1", nil, "loopback"},
		"loopback through NAT64 is refused":                      {"e:1", "64:ff9b::7f00:1", nil, "loopback"},
		"the metadata service through local NAT64 is refused":    {"e:1", "64:ff9b:1::a9fe:a9fe", nil, "link-local"},
		"loopback through 6to4 is refused":                       {"e:1", "2002:7f00:1::", nil, "loopback"},
		"the unspecified address is refused":                     {"e:1", "0.0.0.0", nil, "node itself"},
		"the unspecified IPv6 address is refused":                {"e:1", "::", nil, "node itself"},
		"the rest of the network 0 is refused":                   {"e:1", "0.1.2.3", nil, "node itself"},
		"the metadata service is refused":                        {"e:1", "169.254.169.254", nil, "link-local"},
		"an IPv6 link-local address is refused, whatever zone":   {"e:1", "fe80::1%eth0", nil, "link-local"},
		"multicast is refused":                                   {"e:1", "224.0.0.1", nil, "multicast"},
		"IPv6 multicast is refused":                              {"e:1", "ff02::1", nil, "multicast"},
		"broadcast is refused":                                   {"e:1", "255.255.255.255", nil, "broadcast"},
		"the metadata service of EC2 over IPv6 is refused":       {"e:1", "fd00:ec2::254", nil, "EC2"},
		"the metadata service of Google over IPv6 is refused":    {"e:1", "fd20:ce::254", nil, "Google"},
		"the metadata service of Alibaba is refused":             {"e:1", "100.100.100.200", nil, "Alibaba"},
		"the host agent of Azure is refused":                     {"e:1", "168.63.129.16", nil, "Azure"},
		"the metadata service of Oracle is refused":              {"e:1", "192.0.0.192", nil, "Oracle"},
		"an address of the node is refused":                      {"node:10250", "10.0.0.7", nil, "node itself"},
		"an IPv6 address of the node is refused":                 {"node:10250", "2001:db8::7", nil, "node itself"},
		"a denied address is refused":                            {"kubernetes:443", "10.96.0.1", nil, "denied"},
		"a denied address is refused as an IPv4-mapped address":  {"kubernetes:443", "::ffff:10.96.0.1", nil, "denied"},
		"a denied address is refused through NAT64":              {"kubernetes:443", "64:ff9b::a60:1", nil, "denied"},
		"an allowed host may have a loopback address":            {"minio.test:9000", "127.0.0.1", []string{"minio.test"}, ""},
		"the case of a host does not matter":                     {"MinIO.test.:9000", "127.0.0.1", []string{"minio.TEST"}, ""},
		"an allowed host may have a denied address":              {"minio.test:9000", "10.96.0.1", []string{"minio.test:9000"}, ""},
		"another port of an allowed host is refused":             {"minio.test:6443", "127.0.0.1", []string{"minio.test:9000"}, "loopback"},
		"another host at the same address is refused":            {"evil.test:9000", "127.0.0.1", []string{"minio.test:9000"}, "loopback"},
		"a host whose name ends with an allowed one is refused":  {"eviltest:9000", "127.0.0.1", []string{"test"}, "loopback"},
		"a host of an allowed domain is allowed":                 {"bucket.s3.internal:443", "127.0.0.1", []string{"*.s3.internal"}, ""},
		"a host outside of an allowed domain is refused":         {"bucket.evils3.internal:443", "127.0.0.1", []string{"*.s3.internal"}, "loopback"},
		"an allowed address may be reached by any name":          {"x.test:9000", "127.0.0.1", []string{"127.0.0.1:9000"}, ""},
		"another port of an allowed address is refused":          {"x.test:6443", "127.0.0.1", []string{"127.0.0.1:9000"}, "loopback"},
		"an allowed IPv6 address with a port may be reached":     {"[::1]:9000", "::1", []string{"[::1]:9000"}, ""},
		"an allowed address may be reached on all ports":         {"x.test:1", "169.254.1.1", []string{"169.254.1.1"}, ""},
		"an address of an allowed range may be reached":          {"x.test:1", "169.254.1.1", []string{"169.254.1.0/24"}, ""},
		"an address outside of an allowed range is refused":      {"x.test:1", "169.254.2.1", []string{"169.254.1.0/24"}, "link-local"},
		"a denied address of an allowed range is refused":        {"x.test:1", "10.96.0.1", []string{"10.0.0.0/8"}, "denied"},
		"the address of the node in an allowed range is allowed": {"x.test:1", "10.0.0.7", []string{"10.0.0.0/24"}, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := Policy{AllowEndpoints: tt.allow, Denied: []netip.Prefix{netip.MustParsePrefix("10.96.0.1/32")}, Interfaces: node}
			err := p.Check(tt.endpoint, netip.MustParseAddr(tt.address))
			if tt.refused == "" {
				if err != nil {
					t.Errorf("it is refused: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrRefused) {
				t.Fatalf("the error is %v, want %v", err, ErrRefused)
			}
			for _, text := range []string{tt.refused, tt.endpoint, "--allow-s3-endpoint=" + tt.endpoint} {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error %q does not say %q", err, text)
				}
			}
			// What the error says to allow makes it work.
			p.AllowEndpoints = append(p.AllowEndpoints, tt.endpoint)
			if err := p.Check(tt.endpoint, netip.MustParseAddr(tt.address)); err != nil {
				t.Errorf("with what the error says to allow: %v", err)
			}
		})
	}
}

func TestUnknownInterfacesRefuse(t *testing.T) {
	p := Policy{Interfaces: func() ([]net.Addr, error) { return nil, errors.New("no interfaces") }}
	if err := p.Check("x:1", netip.MustParseAddr("10.0.0.1")); !errors.Is(err, ErrRefused) {
		t.Errorf("the error is %v", err)
	}
}

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		entry string
		valid bool
	}{
		"a host":                {"minio", true},
		"a host and a port":     {"minio.storage.svc:9000", true},
		"a domain":              {"*.s3.internal", true},
		"an address":            {"10.1.2.3", true},
		"an IPv6 address":       {"fd00::1", true},
		"an address and a port": {"[fd00::1]:9000", true},
		"a range":               {"10.0.0.0/8", true},
		"nothing":               {"", false},
		"all":                   {"*", false},
		"a URL":                 {"https://minio:9000", false},
		"a star in a host":      {"s3.*.internal", false},
		"a broken range":        {"10.0.0.0/99", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := (Policy{AllowEndpoints: []string{tt.entry}}).Validate(); (err == nil) != tt.valid {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// A name is resolved by the dialer, and what it connects to is checked: there is no
// address between the check and the use.
func TestDialChecksTheResolvedAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, host := range []string{"localhost", "127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]"} {
		if conn, err := (Policy{}).DialContext(t.Context(), "tcp", host+":"+port); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: connected: %v, %v", host, conn != nil, err)
		}
		conn, err := Policy{AllowEndpoints: []string{host + ":" + port}}.DialContext(t.Context(), "tcp", host+":"+port)
		if err != nil {
			t.Errorf("%s is allowed: %v", host, err)
			continue
		}
		conn.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Policy{}).DialContext(ctx, "tcp", "localhost:"+port); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("with a context that has ended: %v", err)
	}
}
