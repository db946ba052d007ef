package scale

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	// measured is how many volumes are made and deleted among the others, and
	// clonesMeasured how many are cloned.
	measured, clonesMeasured = 100, 20
	// cloneBudget of requests for each clone.
	cloneBudget = 9
	// manyMemoryBudget is what one process may take among 10,000 objects, and
	// never more: at the start it decodes all of them.
	manyMemoryBudget = 120 << 20
	// flat is how much more may be allocated for one object among many others
	// than among few. Whatever looks at all of them takes many times as much.
	flat = 1.5
)

// A sight is what was seen in a cluster of some size.
type sight struct {
	objects               int
	ready                 time.Duration
	start                 proxy.Counts
	startCPU              time.Duration
	memory                footprint
	peak                  int64 // bytes resident
	made, cloned, dropped *cost
}

// What an object costs does not depend on how many others there are: neither in
// requests and calls, nor in what is allocated for it.
func TestManyObjects(t *testing.T) {
	t.Parallel()
	sizes := []int{1000, 2000}
	if *full {
		sizes = []int{1000, 10000}
	}
	w := newManyWorld(t)
	var sights []*sight
	var attachers []*attachSight
	there := 0
	for _, size := range sizes {
		fill(t, w, there, size)
		there = size
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			sights = append(sights, look(t, w, size))
			attachers = append(attachers, lookAtAttacher(t, w, size))
		})
	}
	if t.Failed() {
		return
	}
	few, many := sights[0], sights[len(sights)-1]
	if few.start.Total() != many.start.Total() {
		t.Errorf("a start takes other requests among few (%v) than among many (%v)", few.start, many.start)
	}
	few.made.same(t, "made", many.made)
	few.cloned.same(t, "cloned", many.cloned)
	few.dropped.same(t, "deleted", many.dropped)
	compareAttachers(t, attachers[0], attachers[len(attachers)-1])
	publish(t, "make bench-scale", manyTable(sights))
	publish(t, "attachments among many", manyAttachTable(attachers))
}

// newManyWorld is one whose cluster does nothing by itself: the test plays the
// controllers.
func newManyWorld(t *testing.T) *world.World {
	t.Helper()
	c := cluster.NewAPIOnly(t)
	c.Config.ContentType = "application/vnd.kubernetes.protobuf"
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	c.Client = client
	driver := csitest.New(csitest.Options{})
	w := &world.World{Cluster: c, Driver: driver, Name: "csitest.holdfast.io", Socket: driver.Serve(t)}
	w.Class(t, nil)
	return w
}

// look measures one process from its start to the end of its last volume.
func look(t *testing.T, w *world.World, objects int) *sight {
	t.Helper()
	p := startSubject(t, w)
	s := &sight{objects: objects, ready: p.ready(t)}
	s.start = p.settled(t)
	s.startCPU, s.memory = processor(t, p.PID()), memory(t, p.PID())

	source := p.makeClaims(t, fmt.Sprintf("source-%d", objects), 1, nil)[0]
	bind(t, w, source)
	p.settled(t)

	var volumes, clones []*corev1.PersistentVolumeClaim
	s.made = p.phase(t, measured, func() { volumes = p.makeClaims(t, fmt.Sprintf("claim-%d", objects), measured, nil) })
	s.cloned = p.phase(t, clonesMeasured, func() {
		clones = p.makeClaims(t, fmt.Sprintf("clone-%d", objects), clonesMeasured, func(c *corev1.PersistentVolumeClaim) {
			c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: source.Name}
		})
	})
	all := slices.Concat(volumes, clones)
	s.dropped = p.phase(t, len(all), func() {
		before := p.calls()
		each(len(all), func(n int) { setPhase(t, w, all[n], corev1.VolumeReleased) })
		p.calledSince(t, before, len(all))
	})
	s.peak = peak(t, p.PID())

	s.made.within(t, budget)
	s.cloned.within(t, cloneBudget)
	s.dropped.within(t, budget)
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

// makeClaims makes claims that wait for us, as the controller manager marks
// them, and waits until the driver has been asked for all of them.
func (s *subject) makeClaims(t *testing.T, prefix string, n int, change func(*corev1.PersistentVolumeClaim)) []*corev1.PersistentVolumeClaim {
	t.Helper()
	all := make([]*corev1.PersistentVolumeClaim, n)
	before := s.calls()
	each(n, func(i int) {
		all[i] = s.world.Claim(t, fmt.Sprintf("%s-%d", prefix, i), func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{kube.AnnStorageProvisioner: s.world.Name}
			if change != nil {
				change(c)
			}
		})
	})
	s.calledSince(t, before, n)
	return all
}

// calledSince waits for n more calls for volumes than there were before.
func (s *subject) calledSince(t *testing.T, before, n int) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		if got := s.calls() - before; got < n {
			return fmt.Errorf("%d calls of %d", got, n)
		}
		return nil
	})
}

// volumeName is what the program calls the volume of a claim.
func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// bind does what the controller manager does when a volume has come.
func bind(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim) {
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

// setPhase does what the controller manager does to a volume in the end.
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

// same asserts that an object costs as much among many others.
func (c *cost) same(t *testing.T, what string, among *cost) {
	t.Helper()
	if c.calls != among.calls {
		t.Errorf("%d objects %s take %d calls among few others and %d among many", c.n, what, c.calls, among.calls)
	}
	if few, many := c.kiBEach(), among.kiBEach(); many > flat*few {
		t.Errorf("an object %s takes %.0f KiB among few others and %.0f among many", what, few, many)
	}
}

func manyTable(sights []*sight) string {
	b := newColumns(sights)
	b.row("claims with volumes and attachments", func(s *sight) string { return fmt.Sprintf("%d, of which %d ours", s.objects, s.objects/ourShare) })
	b.line()
	b.row("start to ready", func(s *sight) string { return fmt.Sprintf("%.2f s", s.ready.Seconds()) })
	b.row("requests until it rests", func(s *sight) string { return fmt.Sprint(s.start.Total()) })
	b.row("processor until it rests", func(s *sight) string { return fmt.Sprintf("%.2f s", s.startCPU.Seconds()) })
	b.row("memory then", func(s *sight) string { return s.memory.String() })
	b.row("memory at its peak", func(s *sight) string { return fmt.Sprintf("%d MiB RSS", s.peak>>20) })
	b.row("a volume made", func(s *sight) string { return s.made.String() })
	b.row("a volume cloned", func(s *sight) string { return s.cloned.String() })
	b.row("a volume deleted", func(s *sight) string { return s.dropped.String() })
	return b.String()
}
