package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

// A doomedProcess is killed at its nth write to the API server, before the write or
// after it, without a response.
type doomedProcess struct {
	killAt int64
	after  bool

	writes  atomic.Int64
	mu      sync.Mutex
	process *world.Process
}

// fault returns the fault for a request of the process.
func (m *doomedProcess) fault(r *http.Request) proxy.Fault {
	if !proxy.IsWrite(r) || m.writes.Add(1) != m.killAt {
		return proxy.Fault{}
	}
	if m.after {
		return proxy.Fault{AfterResponse: func() bool { m.kill(); return true }}
	}
	m.kill()
	return proxy.Fault{Disconnect: true}
}

func (m *doomedProcess) kill() {
	m.mu.Lock() // The fault may come before start has returned.
	defer m.mu.Unlock()
	m.process.Kill()
}

// waitKilledOrReady waits until the process was killed, or the group is ready.
func (m *doomedProcess) waitKilledOrReady(t *testing.T, w *world.World, api client.Client) {
	t.Helper()
	w.WaitGroup(t, api, "one", func(s *groupv1.VolumeGroupSnapshotStatus) error {
		if m.writes.Load() < m.killAt && !ptr.Deref(s.ReadyToUse, false) {
			return fmt.Errorf("there were %d writes, and the group is not ready", m.writes.Load())
		}
		return nil
	})
}

// start starts the process, and when it is killed a successor that uses no proxy.
func (m *doomedProcess) start(t *testing.T, w *world.World, start func(testing.TB, ...string) *world.Process) {
	t.Helper()
	kubeconfig := proxy.Start(t, w.Config, m.fault)
	m.mu.Lock()
	m.process = start(t, "--kubeconfig="+kubeconfig)
	m.mu.Unlock()
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-m.process.Done():
			start(t)
		case <-over:
		}
	})
	t.Cleanup(func() { close(over); watching.Wait() })
}

// Whichever of the two processes dies at whichever write, its successor completes the
// group, and deleting the group leaves nothing. If the process dies after the write, a
// ready group is deleted; if it dies before the write, one that is being taken.
func TestGroupSurvivesCrashes(t *testing.T) {
	t.Parallel()
	var deaths atomic.Int64
	t.Run("deaths", func(t *testing.T) {
		for _, after := range []bool{false, true} {
			for nth := int64(1); nth <= 20; nth++ {
				t.Run(fmt.Sprintf("controller, write %d, after it %v", nth, after), func(t *testing.T) {
					t.Parallel()
					deaths.Add(runWithCrash(t, &doomedProcess{killAt: nth, after: after}, nil))
				})
			}
			for nth := int64(1); nth <= 5; nth++ {
				t.Run(fmt.Sprintf("snapshotter, write %d, after it %v", nth, after), func(t *testing.T) {
					t.Parallel()
					deaths.Add(runWithCrash(t, nil, &doomedProcess{killAt: nth, after: after}))
				})
			}
		}
	})
	n := deaths.Load()
	t.Logf("%d processes died", n)
	if n < 30 {
		t.Errorf("only %d processes died: the others have fewer writes than this test expects", n)
	}
}

// runWithCrash takes and deletes a group while one of the processes dies, and returns
// the number of processes that died.
func runWithCrash(t *testing.T, controller, snapshotter *doomedProcess) (died int64) {
	t.Helper()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.StartProvisioner(t)
	w.CreateClass(t, nil)
	w.CreateGroupClass(t, api, nil)
	for _, name := range []string{"data", "log"} {
		w.CreateClaim(t, name, withLabels("app", "shop"))
		w.WaitBound(t, name)
	}
	brief := func(start func(testing.TB, ...string) *world.Process) func(testing.TB, ...string) *world.Process {
		return func(t testing.TB, args ...string) *world.Process {
			return start(t, append(instantRetries[:2:2], args...)...)
		}
	}
	begin := func(m *doomedProcess, start func(testing.TB, ...string) *world.Process) {
		if m == nil {
			start(t)
			return
		}
		m.start(t, w, start)
	}
	begin(controller, brief(w.StartSnapshotController))
	begin(snapshotter, brief(w.StartSnapshotter))

	group := w.CreateGroup(t, api, "one", shop, nil)
	for _, m := range []*doomedProcess{controller, snapshotter} {
		if m != nil && !m.after {
			m.waitKilledOrReady(t, w, api)
		}
	}
	if controller != nil && controller.after || snapshotter != nil && snapshotter.after {
		w.WaitGroupReady(t, api, "one")
		if n := len(w.ListMembers(t, api, group)); n != 2 {
			t.Errorf("the group has %d members", n)
		}
		if n := len(w.Driver.Groups()); n != 1 {
			t.Errorf("the driver has %d groups", n)
		}
	}
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
	world.Eventually(t, func(context.Context) error {
		if n := len(w.Driver.Snapshots()); n > 0 {
			return fmt.Errorf("%d snapshots are left at the driver", n)
		}
		return nil
	})
	for _, m := range []*doomedProcess{controller, snapshotter} {
		if m != nil && m.writes.Load() >= m.killAt {
			died++
		}
	}
	return died
}
