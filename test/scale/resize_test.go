package scale

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	resized = 60 // claims
	// Budgets of requests of the process for each expansion and modification,
	// including events. An expansion that the node completes costs one more, which
	// removes the old size from the volume.
	expandBudget, nodeExpandBudget, modifyBudget = 4, 5, 4
)

// Expanding a volume and changing its attributes costs three writes, one event and one
// driver call each.
func TestCostOfAnExpansionAndOfAModification(t *testing.T) {
	r := newResizeWorld(t, csitest.Options{})
	gold := r.CreateAttributesClass(t, "gold", map[string]string{"iops": "1"})
	r.measure(t, "expand", expandBudget, csi.ControllerExpandVolume, func() {
		r.forEach(func(name string) { r.RequestSize(t, name, "2Gi") })
		r.waitClaims(t, func(c *corev1.PersistentVolumeClaim) bool {
			return c.Status.Capacity.Storage().String() == "2Gi" && len(c.Status.Conditions) == 0
		})
	})
	r.measure(t, "modify", modifyBudget, csi.ControllerModifyVolume, func() {
		r.forEach(func(name string) { r.RequestAttributesClass(t, name, gold) })
		r.waitClaims(t, func(c *corev1.PersistentVolumeClaim) bool {
			return ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "") == gold
		})
	})
	r.deleteAll(t)
}

func TestCostOfAnExpansionThatANodeFinishes(t *testing.T) {
	r := newResizeWorld(t, csitest.Options{NodeExpansion: true})
	r.measure(t, "expand, the node too", nodeExpandBudget, csi.ControllerExpandVolume, func() {
		r.forEach(func(name string) { r.RequestSize(t, name, "2Gi") })
		r.waitClaims(t, func(c *corev1.PersistentVolumeClaim) bool {
			return c.Status.AllocatedResourceStatuses[corev1.ResourceStorage] == corev1.PersistentVolumeClaimNodeResizePending
		})
		r.forEach(func(name string) { r.ExpandOnNode(t, name, "2Gi") })
	})
	r.deleteAll(t)
}

// resizeWorld is a world with bound claims, and a resizer whose requests are counted.
type resizeWorld struct {
	*world.World
	counter *proxy.Counter
}

func newResizeWorld(t *testing.T, o csitest.Options) *resizeWorld {
	t.Helper()
	w := world.New(t, o)
	r := &resizeWorld{World: w, counter: proxy.NewCounter(t, w.Config)}
	w.StartProvisioner(t)
	w.StartResizer(t, "--kubeconfig="+r.counter.Kubeconfig)
	w.CreateClass(t, world.Expandable)
	r.forEach(func(name string) { w.CreateClaim(t, name, nil) })
	r.waitClaims(t, func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimBound })
	r.waitIdle(t)
	return r
}

func (r *resizeWorld) forEach(do func(name string)) {
	for n := range resized {
		do("data-" + strconv.Itoa(n))
	}
}

// waitClaims waits until all claims pass check.
func (r *resizeWorld) waitClaims(t *testing.T, check func(*corev1.PersistentVolumeClaim) bool) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		list, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		n := 0
		for i := range list.Items {
			if check(&list.Items[i]) {
				n++
			}
		}
		if n < resized {
			return fmt.Errorf("%d of %d claims are done", n, resized)
		}
		return nil
	})
}

// measure counts the cost of work.
func (r *resizeWorld) measure(t *testing.T, name string, budget int, method csi.Method, work func()) {
	t.Helper()
	began := time.Now()
	work()
	took := time.Since(began)
	cost := r.waitIdle(t)
	t.Logf("%s: %.1f/s, %.2f requests each: %s", name, resized/took.Seconds(), float64(cost.Total())/resized, cost.PerObject(resized))
	if n := cost.Total(); n > budget*resized {
		t.Errorf("%s: %d requests for %d volumes", name, n, resized)
	}
	if n := r.Driver.Calls(method); n != resized {
		t.Errorf("%s: %d calls for %d volumes", name, n, resized)
	}
}

// waitIdle returns the counted requests when the process has been idle for a second.
func (r *resizeWorld) waitIdle(t *testing.T) proxy.Counts {
	t.Helper()
	sum, looks := proxy.Counts{}, 0
	world.Eventually(t, func(context.Context) error {
		more := r.counter.Reset()
		sum.Add(more)
		if looks++; len(more) > 0 {
			looks = 0
		}
		if looks < 20 { // a second
			return fmt.Errorf("still %d requests", sum.Total())
		}
		return nil
	})
	return sum
}

func (r *resizeWorld) deleteAll(t *testing.T) {
	t.Helper()
	r.forEach(func(name string) { r.DeleteClaim(t, name) })
	r.WaitNothingLeft(t)
}
