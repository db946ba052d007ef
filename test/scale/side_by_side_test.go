package scale

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

var (
	upstream = flag.String("upstream", "", "directory with upstream's csi-provisioner, csi-attacher, csi-resizer, csi-snapshotter and snapshot-controller, to be measured beside the five roles")
	rounds   = flag.Int("rounds", 2, "how often each of the two is measured, in turn")
)

// A side is five programs that do all the work for a driver.
type side struct {
	name      string
	dir       string   // with upstream's programs; "" for the roles of this one
	arguments []string // of every program
	workers   map[string]string
}

// sides are the two that are compared: each role with its default flags and without an
// election, and upstream's programs with limits that do not hold them back.
func sides() []side {
	raised := []string{"--kube-api-qps=1000", "--kube-api-burst=2000"}
	return []side{
		{name: "five roles of holdfast", workers: map[string]string{"csi-attacher": "--leader-election=false"}},
		{name: "five programs of upstream", dir: *upstream, arguments: raised, workers: map[string]string{
			"csi-provisioner": "--worker-threads=100", "csi-attacher": "--worker-threads=100", "csi-resizer": "--workers=100",
			"csi-snapshotter": "--worker-threads=100", "snapshot-controller": "--worker-threads=100",
		}},
	}
}

// A team is the five processes of a side at work.
type team struct {
	*world.World
	api       client.Client
	processes []*world.Process
	counters  []*proxy.Counter
}

// A phaseCost is what one phase of a round costs a side.
type phaseCost struct{ perSecond, cpuEach, requestsEach float64 }

// phases are the names of what a round measures, in order.
var phases = []string{"provision", "attach", "detach", "take a snapshot", "delete the snapshot", "delete the volume"}

// The five roles are compared with the five programs that they replace, in the same run.
// This only measures: rates depend on the machine, and the comparison on both.
func TestFiveRolesBesideUpstream(t *testing.T) {
	if *upstream == "" {
		t.Skip("this only measures, beside the programs in -upstream")
	}
	both := sides()
	costs := make([][][]phaseCost, len(both)) // by side and round
	memory := make([][]int64, len(both))
	for range *rounds {
		for i := range both {
			t.Run(both[i].name, func(t *testing.T) {
				c, m := both[i].round(t)
				costs[i], memory[i] = append(costs[i], c), append(memory[i], m)
			})
		}
	}
	publishTable(t, "side by side", sideBySide(costs, memory))
}

// round measures all phases, and the memory of the five processes after them.
func (s *side) round(t *testing.T) ([]phaseCost, int64) {
	t.Helper()
	m := s.start(t)
	node := m.CreateCSINode(t, "node", "node")
	volumes := make([]string, claims)
	costs := []phaseCost{
		m.measure(t, func() {
			inParallel(claims, func(n int) { m.CreateClaim(t, claimName(n), nil) })
			world.Eventually(t, func(ctx context.Context) error { return checkBound(ctx, m.World, claims) })
		}),
	}
	inParallel(claims, func(n int) { volumes[n] = m.WaitBound(t, claimName(n)).Name })
	costs = append(costs,
		m.measure(t, func() {
			inParallel(claims, func(n int) { m.CreateAttachment(t, volumes[n], node) })
			world.Eventually(t, func(ctx context.Context) error { return allAttached(ctx, m.World, node) })
		}),
		m.measure(t, func() {
			inParallel(claims, func(n int) { m.DeleteAttachment(t, world.AttachmentName(volumes[n], node)) })
			world.Eventually(t, func(ctx context.Context) error { return noAttachmentsOn(ctx, m.World, node) })
		}),
		m.measure(t, func() {
			inParallel(claims, func(n int) { m.CreateSnapshot(t, m.api, snapshotName(n), claimName(n), nil) })
			waitSnapshotsReady(t, m.World, m.api, claims)
		}),
		m.measure(t, func() {
			inParallel(claims, func(n int) { m.DeleteSnapshot(t, m.api, snapshotName(n)) })
			m.WaitNoSnapshotsLeft(t, m.api)
		}),
		m.measure(t, func() {
			inParallel(claims, func(n int) { m.DeleteClaim(t, claimName(n)) })
			m.WaitNothingLeft(t)
		}))
	var resident int64
	for _, p := range m.processes {
		resident += memoryOf(t, p.PID()).resident
	}
	for _, p := range m.processes {
		p.Kill()
	}
	return costs, resident
}

// start starts the five processes with a driver of their own, and waits until each has done
// its work once.
func (s *side) start(t *testing.T) *team {
	t.Helper()
	m := &team{World: world.New(t, csitest.Options{AnyNode: true})}
	m.api = m.SnapshotClient(t)
	m.CreateSnapshotClass(t, m.api, nil)
	m.CreateClass(t, nil)
	for _, role := range []string{"csi-provisioner", "csi-attacher", "csi-resizer", "csi-snapshotter", "snapshot-controller"} {
		counter := proxy.NewCounter(t, m.Config)
		arguments := append([]string{"--kubeconfig=" + counter.Kubeconfig}, s.arguments...)
		if role != "snapshot-controller" {
			arguments = append(arguments, "--csi-address="+m.Socket)
		}
		if more := s.workers[role]; more != "" {
			arguments = append(arguments, more)
		}
		program := ""
		if s.dir != "" {
			program = filepath.Join(s.dir, role)
		}
		m.processes = append(m.processes, world.StartProgram(t, program, role, arguments...))
		m.counters = append(m.counters, counter)
	}
	m.CreateClaim(t, "first", nil)
	volume := m.WaitBound(t, "first").Name
	node := m.CreateCSINode(t, "first", "first")
	m.WaitAttached(t, m.CreateAttachment(t, volume, node))
	m.CreateSnapshot(t, m.api, "first", "first", nil)
	m.WaitSnapshotReady(t, m.api, "first")
	m.DeleteSnapshot(t, m.api, "first")
	m.WaitNoSnapshotsLeft(t, m.api)
	m.DeleteAttachment(t, world.AttachmentName(volume, node))
	m.DeleteClaim(t, "first")
	m.WaitNothingLeft(t)
	m.waitIdle(t)
	return m
}

// measure returns the cost of do, for each of the claims.
func (m *team) measure(t *testing.T, do func()) phaseCost {
	t.Helper()
	m.waitIdle(t)
	cpu := -m.cpu(t)
	began := time.Now()
	do()
	took := time.Since(began)
	requests := m.waitIdle(t)
	cpu += m.cpu(t)
	return phaseCost{
		perSecond: claims / took.Seconds(), cpuEach: cpu.Seconds() * 1000 / claims, requestsEach: float64(requests.Total()) / claims,
	}
}

func (m *team) cpu(t *testing.T) (sum time.Duration) {
	t.Helper()
	for _, p := range m.processes {
		sum += cpuTime(t, p.PID())
	}
	return sum
}

// waitIdle returns the requests so far, when no process has sent any for a second.
func (m *team) waitIdle(t *testing.T) proxy.Counts {
	t.Helper()
	sum, quiet := proxy.Counts{}, 0
	world.Eventually(t, func(context.Context) error {
		quiet++
		for _, c := range m.counters {
			if more := c.Reset(); len(more) > 0 {
				sum.Add(more)
				quiet = 0
			}
		}
		if quiet < 20 {
			return fmt.Errorf("still %d requests", sum.Total())
		}
		return nil
	})
	return sum
}

// sideBySide is the table of both sides: means of the rounds, and the ratio of ours to
// upstream's.
func sideBySide(costs [][][]phaseCost, memory [][]int64) string {
	var b strings.Builder
	b.WriteString("| 300 objects | holdfast: a second, ms of CPU, requests | upstream: a second, ms of CPU, requests | rate | CPU | requests |\n|---|---|---|---|---|---|\n")
	for n, phase := range phases {
		ours, theirs := mean(costs[0], n), mean(costs[1], n)
		fmt.Fprintf(&b, "| %s | %.1f, %.1f, %.1f | %.1f, %.1f, %.1f | %.2f x | %.2f x | %.2f x |\n", phase,
			ours.perSecond, ours.cpuEach, ours.requestsEach, theirs.perSecond, theirs.cpuEach, theirs.requestsEach,
			ours.perSecond/theirs.perSecond, ours.cpuEach/theirs.cpuEach, ours.requestsEach/theirs.requestsEach)
	}
	var sum [2]float64
	for i := range memory {
		for _, m := range memory[i] {
			sum[i] += float64(m>>20) / float64(len(memory[i]))
		}
	}
	fmt.Fprintf(&b, "| memory of the five at the end | %.0f MiB RSS | %.0f MiB RSS | | | %.2f x |\n", sum[0], sum[1], sum[0]/sum[1])
	return b.String()
}

func mean(rounds [][]phaseCost, phase int) (m phaseCost) {
	n := float64(len(rounds))
	for _, r := range rounds {
		m.perSecond += r[phase].perSecond / n
		m.cpuEach += r[phase].cpuEach / n
		m.requestsEach += r[phase].requestsEach / n
	}
	return m
}
