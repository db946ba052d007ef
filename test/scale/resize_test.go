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
	// Budgets of requests of our process for each expansion and each
	// modification, events included. What the node has to finish costs one more:
	// the note of the old size is taken off the volume.
	expandBudget, nodeExpandBudget, modifyBudget = 4, 5, 4
)

// Making a volume larger and changing its attributes costs three writes and one
// event each, and one call of the driver.
func TestCostOfAnExpansionAndOfAModification(t *testing.T) {
	r := newResizables(t, csitest.Options{})
	gold := r.Attributes(t, "gold", map[string]string{"iops": "1"})
	r.phase(t, "expand", expandBudget, csi.ControllerExpandVolume, func() {
		r.all(func(name string) { r.Request(t, name, "2Gi") })
		r.until(t, func(c *corev1.PersistentVolumeClaim) bool {
			return c.Status.Capacity.Storage().String() == "2Gi" && len(c.Status.Conditions) == 0
		})
	})
	r.phase(t, "modify", modifyBudget, csi.ControllerModifyVolume, func() {
		r.all(func(name string) { r.Want(t, name, gold) })
		r.until(t, func(c *corev1.PersistentVolumeClaim) bool {
			return ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "") == gold
		})
	})
	r.drop(t)
}

func TestCostOfAnExpansionThatANodeFinishes(t *testing.T) {
	r := newResizables(t, csitest.Options{NodeExpansion: true})
	r.phase(t, "expand, the node too", nodeExpandBudget, csi.ControllerExpandVolume, func() {
		r.all(func(name string) { r.Request(t, name, "2Gi") })
		r.until(t, func(c *corev1.PersistentVolumeClaim) bool {
			return c.Status.AllocatedResourceStatuses[corev1.ResourceStorage] == corev1.PersistentVolumeClaimNodeResizePending
		})
		r.all(func(name string) { r.ExpandOnNode(t, name, "2Gi") })
	})
	r.drop(t)
}

// resizables are a world with bound claims, and a resizer whose requests are
// counted.
type resizables struct {
	*world.World
	counter *proxy.Counter
}

func newResizables(t *testing.T, o csitest.Options) *resizables {
	t.Helper()
	w := world.New(t, o)
	r := &resizables{World: w, counter: proxy.Count(t, w.Config)}
	w.Provisioner(t)
	w.Resizer(t, "--kubeconfig="+r.counter.Kubeconfig)
	w.Class(t, world.Expandable)
	r.all(func(name string) { w.Claim(t, name, nil) })
	r.until(t, func(c *corev1.PersistentVolumeClaim) bool { return c.Status.Phase == corev1.ClaimBound })
	r.quiet(t)
	return r
}

func (r *resizables) all(do func(name string)) {
	for n := range resized {
		do("data-" + strconv.Itoa(n))
	}
}

// until waits until all claims are as wanted.
func (r *resizables) until(t *testing.T, wanted func(*corev1.PersistentVolumeClaim) bool) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		list, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		n := 0
		for i := range list.Items {
			if wanted(&list.Items[i]) {
				n++
			}
		}
		if n < resized {
			return fmt.Errorf("%d claims of %d are done", n, resized)
		}
		return nil
	})
}

// phase counts what work costs.
func (r *resizables) phase(t *testing.T, name string, budget int, method csi.Method, work func()) {
	t.Helper()
	began := time.Now()
	work()
	took := time.Since(began)
	cost := r.quiet(t)
	t.Logf("%s: %.1f/s, %.2f requests each: %s", name, resized/took.Seconds(), float64(cost.Total())/resized, cost.Per(resized))
	if n := cost.Total(); n > budget*resized {
		t.Errorf("%s: %d requests for %d volumes", name, n, resized)
	}
	if n := r.Driver.Calls(method); n != resized {
		t.Errorf("%s: %d calls for %d volumes", name, n, resized)
	}
}

// quiet returns what was counted when nothing is asked for any more.
func (r *resizables) quiet(t *testing.T) proxy.Counts {
	t.Helper()
	sum, looks := proxy.Counts{}, 0
	world.Eventually(t, func(context.Context) error {
		more := r.counter.Take()
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

func (r *resizables) drop(t *testing.T) {
	t.Helper()
	r.all(func(name string) { r.DropClaim(t, name) })
	r.NothingLeft(t)
}
