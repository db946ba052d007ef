package scale

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// Budgets of requests of our process for one VolumeAttachment.
const (
	firstAttachBudget = 3 // of a volume that was not attached before
	laterAttachBudget = 2
	detachBudget      = 1
)

// The first attachment of a volume costs at most three requests, later ones two, a
// detachment one. Every driver call is made once.
func TestCostOfAnAttachment(t *testing.T) {
	w := world.New(t, csitest.Options{AnyNode: true})
	s := startRole(t, w, w.StartAttacher, csi.ControllerPublishVolume, csi.ControllerUnpublishVolume)
	one, two := w.CreateCSINode(t, "one", "one"), w.CreateCSINode(t, "two", "two")
	volumes := make([]string, claims)
	inParallel(claims, func(n int) { volumes[n] = w.CreatePV(t, fmt.Sprint(n), nil).Name })
	attached := func(node string) func() {
		return func() {
			inParallel(claims, func(n int) { w.CreateAttachment(t, volumes[n], node) })
			world.Eventually(t, func(ctx context.Context) error { return allAttached(ctx, w, node) })
		}
	}
	detached := func(node string) func() {
		return func() {
			inParallel(claims, func(n int) { w.DeleteAttachment(t, world.AttachmentName(volumes[n], node)) })
			world.Eventually(t, func(ctx context.Context) error { return noAttachmentsOn(ctx, w, node) })
		}
	}
	s.waitReady(t)
	s.waitIdle(t)
	first := s.measure(t, claims, attached(one))
	dropped := s.measure(t, claims, detached(one))
	later := s.measure(t, claims, attached(two))
	took := memoryOf(t, s.PID())
	s.measure(t, claims, detached(two))

	first.checkBudget(t, firstAttachBudget)
	later.checkBudget(t, laterAttachBudget)
	dropped.checkBudget(t, detachBudget)
	for _, c := range []*cost{first, later, dropped} {
		if c.calls != c.n {
			t.Errorf("%d driver calls for %d attachments", c.calls, c.n)
		}
	}
	publishTable(t, "attachments", attachTable(first, later, dropped, took))
}

func attachTable(first, later, dropped *cost, took memoryUse) string {
	return comparisonTable("300 attachments",
		tableRow{"attached a second, the first time", figure("%.0f", first.perSecond()), "190.7", "1.7"},
		tableRow{"requests for one", figure("%.2f", first.requestsEach()), "3.3", ""},
		tableRow{"ms of CPU for one", figure("%.2f", first.cpuEach()), "1.83 (five processes)", ""},
		tableRow{"attached a second, later", figure("%.0f", later.perSecond()), "", ""},
		tableRow{"requests for one", figure("%.2f", later.requestsEach()), "2.3", ""},
		tableRow{"detached a second", figure("%.0f", dropped.perSecond()), "317.7", "1.7"},
		tableRow{"requests for one", figure("%.2f", dropped.requestsEach()), "2.0", ""},
		tableRow{"ms of CPU for one", figure("%.2f", dropped.cpuEach()), "0.83 (five processes)", ""},
		tableRow{"memory with 300 attached", took.String(), "", ""})
}

func allAttached(ctx context.Context, w *world.World, node string) error {
	list, err := w.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	n := 0
	for i := range list.Items {
		if list.Items[i].Spec.NodeName == node && list.Items[i].Status.Attached {
			n++
		}
	}
	if n < claims {
		return fmt.Errorf("%d of %d volumes are attached", n, claims)
	}
	return nil
}

func noAttachmentsOn(ctx context.Context, w *world.World, node string) error {
	list, err := w.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return err
	}
	for i := range list.Items {
		if list.Items[i].Spec.NodeName == node {
			return fmt.Errorf("%s still exists", list.Items[i].Name)
		}
	}
	return nil
}

// A lost node leaves many detachments. A new pod does not wait for them: here they
// block until its volume is attached, and there are many more of them than workers.
func TestDetachmentsDoNotDelayAttachments(t *testing.T) {
	w := world.New(t, csitest.Options{AnyNode: true})
	w.StartAttacher(t, "--worker-threads=4", "--timeout=10m")
	const many = 40
	gone, volumes := attachMany(t, w, many)
	attached := make(chan struct{})
	w.Driver.SetHooks(csitest.Hooks{Before: func(ctx context.Context, method csi.Method, _ any) error {
		if method == csi.ControllerUnpublishVolume {
			select {
			case <-attached:
			case <-ctx.Done():
			}
		}
		return nil
	}})
	inParallel(many, func(n int) { w.DeleteAttachment(t, world.AttachmentName(volumes[n], gone)) })
	w.WaitAttached(t, w.CreateAttachment(t, volumes[many], w.CreateCSINode(t, "node", "node")))
	close(attached)
	world.Eventually(t, func(ctx context.Context) error { return noAttachmentsOn(ctx, w, gone) })
}

// This test measures the delay of an attachment beside 1,000 detachments, with a slow
// driver.
func TestDelayOfAnAttachment(t *testing.T) {
	if !*full {
		t.Skip("this only measures, with -full; TestDetachmentsDoNotDelayAttachments asserts the behavior")
	}
	w := world.New(t, csitest.Options{AnyNode: true})
	w.StartAttacher(t, "--worker-threads=4")
	const many, slow = 1000, time.Second
	gone, volumes := attachMany(t, w, many)
	w.Driver.SetLatency(slow)
	inParallel(many, func(n int) { w.DeleteAttachment(t, world.AttachmentName(volumes[n], gone)) })
	node := w.CreateCSINode(t, "node", "node")
	began := time.Now()
	w.WaitAttached(t, w.CreateAttachment(t, volumes[many], node))
	took := time.Since(began)
	queued := many - w.Driver.Calls(csi.ControllerUnpublishVolume)
	w.Driver.SetLatency(0)
	t.Logf("with %d detachments queued and %s for a driver call, an attachment took %s", queued, slow, took.Round(time.Millisecond))
	world.Eventually(t, func(ctx context.Context) error { return noAttachmentsOn(ctx, w, gone) })
}

// attachMany attaches many volumes to a node, and creates one more.
func attachMany(t *testing.T, w *world.World, many int) (node string, volumes []string) {
	t.Helper()
	node, volumes = w.CreateCSINode(t, "gone", "gone"), make([]string, many+1)
	inParallel(many+1, func(n int) { volumes[n] = w.CreatePV(t, fmt.Sprint(n), nil).Name })
	inParallel(many, func(n int) { w.CreateAttachment(t, volumes[n], node) })
	inParallel(many, func(n int) { w.WaitAttached(t, world.AttachmentName(volumes[n], node)) })
	return node, volumes
}
