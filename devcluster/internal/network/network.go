// Package network gives a cluster's nodes a network of their own.
//
// A bridge in a network namespace of its own is the switch. The machine and
// every node hang on it by a veth pair, so node to node and machine to node is
// one hop and the machine need not forward packets. Each end dies with the
// namespace of the other: nothing is left on the machine when the switch's
// process is gone, whichever way it went.
package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/devcluster/internal/lifeline"
)

// SwitchRole is the name under which the program holds the switch's namespace.
const SwitchRole = "node-switch"

const bridge = "switch"

// RunSwitch keeps a network namespace alive until the lifeline ends it.
func RunSwitch([]string) int { select {} }

// A Network is a switch that nodes can be plugged into.
type Network struct {
	Plan  Plan
	pid   int
	ended <-chan struct{}
}

// New starts the switch and gives this machine the plan's host address. What it
// returns with an error is to be closed too, unless it is nil.
func New(plan Plan, line *lifeline.Line, held ...*os.File) (*Network, error) {
	cmd := lifeline.Self(SwitchRole)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	line.Attach(cmd, held...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("making a network namespace (in a container, it must be privileged): %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // It ends by the lifeline only; this takes its exit status away.
	}()
	n := &Network{Plan: plan, pid: cmd.Process.Pid, ended: ended}
	if err := n.addBridge(); err != nil {
		return n, err
	}
	return n, n.addHost()
}

// Close waits for the end of the switch, whose line was cut, and of the
// machine's plug in it: by itself that one goes a little later.
func (n *Network) Close() error {
	<-n.ended
	here, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer here.Close()
	plug, err := here.LinkByName(n.hostLink())
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding interface %s: %w", n.hostLink(), err)
	}
	if err := here.LinkDel(plug); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("removing interface %s: %w", n.hostLink(), err)
	}
	return nil
}

func (n *Network) hostLink() string { return fmt.Sprintf("devcluster%d", n.Plan.number) }

func (n *Network) addBridge() error {
	inside, err := at(n.pid)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.LinkAdd(&netlink.Bridge{LinkAttrs: named(bridge)}); err != nil {
		return fmt.Errorf("making a bridge (does the kernel have CONFIG_BRIDGE?): %w", err)
	}
	return up(inside, bridge)
}

// addHost plugs the machine itself into the switch.
func (n *Network) addHost() error {
	here, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	defer here.Close()
	name := n.hostLink()
	if err := n.plug("host", name, os.Getpid()); err != nil {
		return err
	}
	if err := address(here, name, n.Plan.Host()); err != nil {
		return err
	}
	for i := 1; i <= MaxNodes; i++ {
		if err := route(here, name, n.Plan.Pods(i), n.Plan.Node(i)); err != nil {
			return err
		}
	}
	return nil
}

// AddNode plugs node i (counted from 1), whose first process is pid, into the
// switch. It finds its address on eth0.
func (n *Network) AddNode(i, pid int) error {
	if err := n.plug(fmt.Sprintf("node%d", i), "eth0", pid); err != nil {
		return err
	}
	inside, err := at(pid)
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := up(inside, "lo"); err != nil {
		return err
	}
	if err := address(inside, "eth0", n.Plan.Node(i)); err != nil {
		return err
	}
	for other := 1; other <= MaxNodes; other++ {
		if other == i {
			continue
		}
		if err := route(inside, "eth0", n.Plan.Pods(other), n.Plan.Node(other)); err != nil {
			return err
		}
	}
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	return route(inside, "eth0", everything, n.Plan.Host())
}

// plug makes a veth pair: port on the switch, name in the namespace of pid.
func (n *Network) plug(port, name string, pid int) error {
	inside, err := at(n.pid)
	if err != nil {
		return err
	}
	defer inside.Close()
	veth := &netlink.Veth{LinkAttrs: named(port), PeerName: name, PeerNamespace: netlink.NsPid(pid)}
	if err := inside.LinkAdd(veth); err != nil {
		return fmt.Errorf("making a veth pair (does the kernel have CONFIG_VETH?): %w", err)
	}
	master, err := inside.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("finding the bridge: %w", err)
	}
	if err := inside.LinkSetMaster(veth, master); err != nil {
		return fmt.Errorf("plugging %s into the bridge: %w", port, err)
	}
	return up(inside, port)
}

func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// at opens netlink in the network namespace of a process.
func at(pid int) (*netlink.Handle, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace of process %d: %w", pid, err)
	}
	defer func() { _ = ns.Close() }()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, fmt.Errorf("opening netlink in the namespace of process %d: %w", pid, err)
	}
	return h, nil
}

func up(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding interface %s: %w", name, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing up interface %s: %w", name, err)
	}
	return nil
}

func address(h *netlink.Handle, name string, a netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding interface %s: %w", name, err)
	}
	subnet := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(24, 32)}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: subnet}); err != nil {
		return fmt.Errorf("giving %s the address %s: %w", name, a, err)
	}
	return up(h, name)
}

func route(h *netlink.Handle, name string, to netip.Prefix, via netip.Addr) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding interface %s: %w", name, err)
	}
	dst := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), 32)}
	if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("routing %s via %s: %w", to, via, err)
	}
	return nil
}
