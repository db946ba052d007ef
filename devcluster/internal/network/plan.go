package network

import (
	"fmt"
	"net"
	"net/netip"
)

// MaxNodes is how many nodes a plan has addresses for.
const MaxNodes = 14

// Plans is how many plans there are: how many clusters with nodes one machine
// can have at a time.
const Plans = 32

// base is set aside for tests of network devices (RFC 2544, section C.2.2), so
// it is nobody's real network. Each plan takes a /20 of it.
var base = netip.MustParseAddr("198.18.0.0")

// A Plan is the addresses of one cluster: a /20 whose first /24 holds the
// machine (.1) and the nodes (.11 and up), and whose next ones hold the pods of
// node 1, of node 2 and so on.
type Plan struct{ number int }

// NewPlan returns plan number n, 0 ≤ n < Plans.
func NewPlan(n int) Plan { return Plan{number: n} }

// Host is the machine's address as nodes and pods see it.
func (p Plan) Host() netip.Addr { return p.addr(0, 1) }

// Node is the address of node i, counted from 1.
func (p Plan) Node(i int) netip.Addr { return p.addr(0, 10+i) }

// Pods is the range of the pods on node i, counted from 1.
func (p Plan) Pods(i int) netip.Prefix { return netip.PrefixFrom(p.addr(i, 0), 24) }

// All is everything that the plan uses.
func (p Plan) All() netip.Prefix { return netip.PrefixFrom(p.addr(0, 0), 20) }

func (p Plan) addr(third, fourth int) netip.Addr {
	b := base.As4()
	offset := p.number*16 + third
	b[1] += byte(offset >> 8)
	b[2] += byte(offset & 0xff)
	b[3] = byte(fourth)
	return netip.AddrFrom4(b)
}

// Free returns an error that names the interface when this machine already
// uses an address of the plan.
func (p Plan) Free() error {
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("listing network interfaces: %w", err)
	}
	for _, link := range links {
		addresses, err := link.Addrs()
		if err != nil {
			return fmt.Errorf("listing the addresses of %s: %w", link.Name, err)
		}
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Overlaps(p.All()) {
				return fmt.Errorf("interface %s already uses %s, inside %s", link.Name, prefix, p.All())
			}
		}
	}
	return nil
}
