package cluster

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/holdfast-io/holdfast/devcluster/internal/network"
)

const (
	// firstPort and the ports after it are outside the range from which
	// kernels pick ports for outgoing connections.
	firstPort    = 21000
	portsPerSlot = 8
)

// A slot is a number that no other cluster on this machine has. Ports and
// network addresses derive from it, so clusters that start at the same time
// cannot take each other's.
type slot struct {
	number int
	held   net.Listener
}

// takeSlot claims the first number whose ports and, for nodes, addresses are
// free. The claim is a name in the kernel that goes away with this process.
func takeSlot(nodes bool) (*slot, error) {
	var reasons []error
	for n := range network.Plans {
		s, err := trySlot(n, nodes)
		if err == nil {
			return s, nil
		}
		reasons = append(reasons, err)
	}
	return nil, fmt.Errorf("finding free ports and addresses: %w", errors.Join(reasons...))
}

func trySlot(n int, nodes bool) (*slot, error) {
	held, err := net.Listen("unix", fmt.Sprintf("@holdfast-devcluster-%d", n))
	if err != nil {
		return nil, fmt.Errorf("slot %d is taken: %w", n, err)
	}
	s := &slot{number: n, held: held}
	if err := s.usable(nodes); err != nil {
		return nil, errors.Join(fmt.Errorf("slot %d: %w", n, err), held.Close())
	}
	return s, nil
}

func (s *slot) usable(nodes bool) error {
	if nodes {
		if err := network.NewPlan(s.number).Free(); err != nil {
			return err
		}
	}
	for i := range portsPerSlot {
		l, err := net.Listen("tcp", s.loopback(i))
		if err != nil {
			return err
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (s *slot) port(i int) string { return strconv.Itoa(firstPort + s.number*portsPerSlot + i) }

func (s *slot) loopback(i int) string { return net.JoinHostPort("127.0.0.1", s.port(i)) }

// The use of a slot's ports.
const (
	portAPI = iota
	portEtcd
	portEtcdPeer
	portControllerManager
	portScheduler
)
