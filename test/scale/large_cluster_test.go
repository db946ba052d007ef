package scale

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	// measured is the number of volumes that are created and deleted among the others;
	// clonesMeasured is the number of clones.
	measured, clonesMeasured = 100, 20
	// cloneBudget of requests for each clone.
	cloneBudget = 9
	// manyMemoryBudget is the largest memory of one process among 10,000 objects. At the
	// start it decodes all of them.
	manyMemoryBudget = 120 << 20
	// maxGrowth is the largest factor by which one object may allocate more among many
	// others than among few. A process that reads all objects exceeds it by far.
	maxGrowth = 1.5
)

// A provisionerResult is the result of measuring the provisioner in a cluster of some
// size.
type provisionerResult struct {
	objects int
	startup
	peak                  int64 // bytes resident
	made, cloned, dropped *cost
}

// The cost of an object does not depend on the number of others, neither in requests
// and calls nor in allocations.
func TestManyObjects(t *testing.T) {
	t.Parallel()
	sizes := []int{1000, 2000}
	if *full {
		sizes = []int{1000, 10000}
	}
	w := newAPIOnlyWorld(t)
	var results []*provisionerResult
	var attachers []*attacherResult
	there := 0
	for _, size := range sizes {
		createObjects(t, w, there, size)
		there = size
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			results = append(results, measureProvisioner(t, w, size))
			attachers = append(attachers, measureAttacher(t, w, size))
		})
	}
	if t.Failed() {
		return
	}
	few, many := results[0], results[len(results)-1]
	if few.start.Total() != many.start.Total() {
		t.Errorf("starting takes other requests among few (%v) than among many (%v)", few.start, many.start)
	}
	few.made.checkSame(t, "made", many.made)
	few.cloned.checkSame(t, "cloned", many.cloned)
	few.dropped.checkSame(t, "deleted", many.dropped)
	compareAttachers(t, attachers[0], attachers[len(attachers)-1])
	publishTable(t, "make bench-scale", manyTable(results))
	publishTable(t, "attachments among many", manyAttachTable(attachers))
}

// newAPIOnlyWorld is a world without controllers, with the protobuf encoding.
func newAPIOnlyWorld(t *testing.T) *world.World {
	t.Helper()
	w := world.NewAPIOnly(t, csitest.Options{})
	w.Config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(w.Config)
	if err != nil {
		t.Fatal(err)
	}
	w.Client = client
	w.CreateClass(t, nil)
	return w
}

// measureProvisioner measures one process from its start to its last volume.
func measureProvisioner(t *testing.T, w *world.World, objects int) *provisionerResult {
	t.Helper()
	p := startProvisioner(t, w)
	s := &provisionerResult{objects: objects, startup: p.measureStart(t)}

	source := p.createClaims(t, fmt.Sprintf("source-%d", objects), 1, nil)[0]
	bindClaim(t, w, source)
	p.waitIdle(t)

	var volumes, clones []*corev1.PersistentVolumeClaim
	s.made = p.measure(t, measured, func() { volumes = p.createClaims(t, fmt.Sprintf("claim-%d", objects), measured, nil) })
	s.cloned = p.measure(t, clonesMeasured, func() {
		clones = p.createClaims(t, fmt.Sprintf("clone-%d", objects), clonesMeasured, func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: source.Name}
		})
	})
	all := slices.Concat(volumes, clones)
	s.dropped = p.measure(t, len(all), func() {
		before := p.driverCalls()
		inParallel(len(all), func(n int) { setPhase(t, w, all[n], corev1.VolumeReleased) })
		p.waitCalls(t, before, len(all))
	})
	s.peak = peakMemory(t, p.PID())

	s.made.checkBudget(t, budget)
	s.cloned.checkBudget(t, cloneBudget)
	s.dropped.checkBudget(t, budget)
	for what, c := range map[string]*cost{"making": s.made, "cloning": s.cloned, "deleting": s.dropped} {
		if c.calls != c.n {
			t.Errorf("%s took %d calls for %d volumes", what, c.calls, c.n)
		}
	}
	if s.peak > manyMemoryBudget {
		t.Errorf("up to %d MiB were resident among %d volumes, more than %d", s.peak>>20, objects, manyMemoryBudget>>20)
	}
	p.Kill()
	return s
}

// createClaims creates claims with the controller manager's annotation, and waits
// until the driver was called for all of them.
func (s *measuredProcess) createClaims(t *testing.T, prefix string, n int, change func(*corev1.PersistentVolumeClaim)) []*corev1.PersistentVolumeClaim {
	t.Helper()
	all := make([]*corev1.PersistentVolumeClaim, n)
	before := s.driverCalls()
	inParallel(n, func(i int) {
		all[i] = s.world.CreateClaim(t, fmt.Sprintf("%s-%d", prefix, i), func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{kube.AnnStorageProvisioner: s.world.Name}
			if change != nil {
				change(c)
			}
		})
	})
	s.waitCalls(t, before, n)
	return all
}

// waitCalls waits for n more calls than before.
func (s *measuredProcess) waitCalls(t *testing.T, before, n int) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		if got := s.driverCalls() - before; got < n {
			return fmt.Errorf("%d calls of %d", got, n)
		}
		return nil
	})
}

// volumeName returns the name of a claim's volume.
func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// bindClaim binds a claim to its new volume, as the controller manager does.
func bindClaim(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim) {
	t.Helper()
	setPhase(t, w, claim, corev1.VolumeBound)
	claim.Spec.VolumeName = volumeName(claim)
	claims := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace)
	bound, err := claims.Update(t.Context(), claim, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound.Status.Phase = corev1.ClaimBound
	if _, err := claims.UpdateStatus(t.Context(), bound, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// setPhase sets the phase of a volume, as the controller manager does.
func setPhase(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumePhase) {
	t.Helper()
	volumes := w.Client.CoreV1().PersistentVolumes()
	world.Eventually(t, func(ctx context.Context) error {
		volume, err := volumes.Get(ctx, volumeName(claim), metav1.GetOptions{})
		if err != nil {
			return err
		}
		volume.Status.Phase = phase
		_, err = volumes.UpdateStatus(ctx, volume, metav1.UpdateOptions{})
		return err
	})
}

// checkSame checks that an object costs the same among many others.
func (c *cost) checkSame(t *testing.T, what string, among *cost) {
	t.Helper()
	if c.calls != among.calls {
		t.Errorf("%d objects %s take %d calls among few others and %d among many", c.n, what, c.calls, among.calls)
	}
	if few, many := c.kiBEach(), among.kiBEach(); many > maxGrowth*few {
		t.Errorf("an object %s takes %.0f KiB among few others and %.0f among many", what, few, many)
	}
}

func manyTable(results []*provisionerResult) string {
	b := newColumns(results)
	b.row("claims with volumes and attachments", func(s *provisionerResult) string {
		return fmt.Sprintf("%d, of which %d ours", s.objects, s.objects/everyNthIsOurs)
	})
	b.line()
	startupRows(b, func(s *provisionerResult) *startup { return &s.startup })
	b.row("peak memory", func(s *provisionerResult) string { return fmt.Sprintf("%d MiB RSS", s.peak>>20) })
	b.row("one volume created", func(s *provisionerResult) string { return s.made.String() })
	b.row("one volume cloned", func(s *provisionerResult) string { return s.cloned.String() })
	b.row("one volume deleted", func(s *provisionerResult) string { return s.dropped.String() })
	return b.String()
}
