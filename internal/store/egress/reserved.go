package egress

import "net/netip"

// reserved are the addresses that no endpoint of a tenant has, and why. Link-local
// addresses have the metadata services of most clouds, with the node's credentials.
var reserved = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "means the node itself"},
	{netip.MustParsePrefix("::/128"), "means the node itself"},
	{netip.MustParsePrefix("127.0.0.0/8"), "is a loopback address of the node"},
	{netip.MustParsePrefix("::1/128"), "is a loopback address of the node"},
	{netip.MustParsePrefix("169.254.0.0/16"), "is a link-local address, as metadata services have"},
	{netip.MustParsePrefix("fe80::/10"), "is a link-local address, as metadata services have"},
	{netip.MustParsePrefix("224.0.0.0/4"), "is a multicast address"},
	{netip.MustParsePrefix("ff00::/8"), "is a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "is the broadcast address"},
	{netip.MustParsePrefix("fd00:ec2::/32"), "is a metadata service of Amazon EC2"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "is the metadata service of Google Cloud"},
	{netip.MustParsePrefix("100.100.100.200/32"), "is the metadata service of Alibaba Cloud"},
	{netip.MustParsePrefix("168.63.129.16/32"), "is the host agent's service of Azure"},
	{netip.MustParsePrefix("192.0.0.192/32"), "is the metadata service of Oracle Cloud"},
}

func reservedReason(address netip.Addr) string {
	for _, r := range reserved {
		if r.prefix.Contains(address) {
			return r.reason
		}
	}
	return ""
}

// translated are IPv6 prefixes whose addresses stand for IPv4 addresses, and where those
// start: IPv4-compatible (RFC 4291, 2.5.5.1), NAT64 (RFC 6052 and 8215), and 6to4 (RFC
// 3056).
var translated = []struct {
	prefix netip.Prefix
	offset int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// embedded returns the IPv4 address that an IPv6 address stands for.
func embedded(address netip.Addr) []netip.Addr {
	if !address.Is6() || address == netip.IPv6Unspecified() || address == netip.IPv6Loopback() {
		return nil
	}
	bytes := address.As16()
	for _, t := range translated {
		if t.prefix.Contains(address) {
			return []netip.Addr{netip.AddrFrom4([4]byte(bytes[t.offset : t.offset+4]))}
		}
	}
	return nil
}
