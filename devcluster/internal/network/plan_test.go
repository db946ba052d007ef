package network

import "testing"

func TestPlansDoNotOverlap(t *testing.T) {
	for n := range Plans {
		for m := range n {
			if NewPlan(n).All().Overlaps(NewPlan(m).All()) {
				t.Errorf("plans %d and %d overlap: %s and %s", n, m, NewPlan(n).All(), NewPlan(m).All())
			}
		}
	}
}

func TestAPlanHoldsWhatItHandsOut(t *testing.T) {
	for n := range Plans {
		p := NewPlan(n)
		if !p.All().Contains(p.Host()) {
			t.Errorf("plan %d: host %s is outside %s", n, p.Host(), p.All())
		}
		for i := 1; i <= MaxNodes; i++ {
			if !p.All().Contains(p.Node(i)) || !p.All().Overlaps(p.Pods(i)) {
				t.Errorf("plan %d: node %d (%s, pods %s) is outside %s", n, i, p.Node(i), p.Pods(i), p.All())
			}
			if p.Pods(i).Contains(p.Node(i)) {
				t.Errorf("plan %d: node %d has an address of its pods", n, i)
			}
		}
	}
}
