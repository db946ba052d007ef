package cluster

import (
	"net"
	"testing"

	"github.com/holdfast-io/holdfast/devcluster/internal/network"
)

func TestSlotsAreHeldOnce(t *testing.T) {
	first, err := takeSlot(false)
	if err != nil {
		t.Fatal(err)
	}
	defer first.held.Close()
	second, err := takeSlot(false)
	if err != nil {
		t.Fatal(err)
	}
	defer second.held.Close()
	if first.number == second.number {
		t.Errorf("slot %d was given out twice", first.number)
	}
}

func TestASlotWithATakenPortIsLeftOut(t *testing.T) {
	s, err := takeSlot(false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.held.Close(); err != nil {
		t.Fatal(err)
	}
	foreign, err := net.Listen("tcp", s.loopback(portScheduler))
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if again, err := trySlot(s.number, false); err == nil {
		again.held.Close()
		t.Errorf("slot %d was given out though its port %s is taken", s.number, s.port(portScheduler))
	}
}

func TestPortsOfSlotsDoNotOverlap(t *testing.T) {
	seen := map[string]bool{}
	for n := range network.Plans {
		for i := range portsPerSlot {
			port := (&slot{number: n}).port(i)
			if seen[port] {
				t.Errorf("port %s is in two slots", port)
			}
			seen[port] = true
		}
	}
	if portScheduler >= portsPerSlot {
		t.Errorf("a slot has %d ports and uses more", portsPerSlot)
	}
}
