package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

const zoneKey = "topology.example.com/zone"

// A capacityWorld has a driver with two zones, a and b, of 10 GiB each, and one node
// in each zone.
type capacityWorld struct{ *world.World }

func newCapacityWorld(t *testing.T) *capacityWorld {
	t.Helper()
	w := &capacityWorld{world.New(t, csitest.Options{
		Capacity: 10 << 30, Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}},
	})}
	w.addNode(t, "a")
	w.addNode(t, "b")
	return w
}

// startPublisher starts a provisioner that publishes capacity. Unless args say
// otherwise it never polls: it must react to events.
func (w *capacityWorld) startPublisher(t *testing.T, args ...string) *world.Process {
	t.Helper()
	return w.StartProvisioner(t, append([]string{
		"--enable-capacity", "--capacity-ownerref-level=-1", "--capacity-poll-interval=24h", "--strict-topology", "--retry-interval-start=0.1",
	}, args...)...)
}

// addNode creates a Node in a zone, with the driver registered.
func (w *capacityWorld) addNode(t *testing.T, zone string) {
	t.Helper()
	w.CreateNode(t, w.nodeName(zone), map[string]string{zoneKey: zone})
	w.CreateCSINode(t, zone, w.nodeName(zone), zoneKey)
}

func (w *capacityWorld) nodeName(zone string) string { return w.Namespace + "-" + zone }

func (w *capacityWorld) deleteNode(ctx context.Context, zone string) error {
	return errors.Join(
		w.Client.CoreV1().Nodes().Delete(ctx, w.nodeName(zone), metav1.DeleteOptions{}),
		w.Client.StorageV1().CSINodes().Delete(ctx, w.nodeName(zone), metav1.DeleteOptions{}),
	)
}

// createDelayedClass creates a class with WaitForFirstConsumer.
func (w *capacityWorld) createDelayedClass(t *testing.T, suffix string) string {
	t.Helper()
	return w.CreateClass(t, func(c *storagev1.StorageClass) {
		c.Name += suffix
		world.WaitForFirstConsumer(c)
	}).Name
}

// createClaimInZone creates a claim for which the scheduler has selected the node of a
// zone.
func (w *capacityWorld) createClaimInZone(t *testing.T, name, zone, size string) {
	t.Helper()
	w.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{"volume.kubernetes.io/selected-node": w.nodeName(zone)}
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
	})
}

// listCapacities returns the objects of the world's driver that a provisioner
// publishes.
func (w *capacityWorld) listCapacities(ctx context.Context) ([]storagev1.CSIStorageCapacity, error) {
	list, err := w.Client.StorageV1().CSIStorageCapacities(w.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: "csi.storage.k8s.io/managed-by=external-provisioner,csi.storage.k8s.io/drivername=" + w.Name,
	})
	return list.Items, err
}

// createCapacity creates an object as another provisioner would.
func (w *capacityWorld) createCapacity(t *testing.T, class, zone, size string, change func(*storagev1.CSIStorageCapacity)) *storagev1.CSIStorageCapacity {
	t.Helper()
	o := &storagev1.CSIStorageCapacity{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "csisc-", Labels: map[string]string{
			"csi.storage.k8s.io/managed-by": "external-provisioner", "csi.storage.k8s.io/drivername": w.Name,
		}},
		NodeTopology:     &metav1.LabelSelector{MatchLabels: map[string]string{zoneKey: zone}},
		StorageClassName: class,
		Capacity:         ptr.To(resource.MustParse(size)),
	}
	if change != nil {
		change(o)
	}
	made, err := w.Client.StorageV1().CSIStorageCapacities(w.Namespace).Create(t.Context(), o, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (w *capacityWorld) deleteCapacity(t *testing.T, name string) {
	t.Helper()
	if err := w.Client.StorageV1().CSIStorageCapacities(w.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// waitCapacities waits until exactly these objects exist, each as "class zone
// capacity".
func (w *capacityWorld) waitCapacities(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	world.Eventually(t, func(ctx context.Context) error {
		objects, err := w.listCapacities(ctx)
		if err != nil {
			return err
		}
		var got []string
		for _, o := range objects {
			zone := "?"
			if o.NodeTopology != nil {
				zone = o.NodeTopology.MatchLabels[zoneKey]
			}
			got = append(got, fmt.Sprintf("%s %s %s", o.StorageClassName, zone, o.Capacity))
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func TestCapacityIsPublishedAndUpdated(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	w.startPublisher(t)
	fast := w.createDelayedClass(t, "")
	w.CreateClass(t, func(c *storagev1.StorageClass) { c.Name += "-immediate" })
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")

	// A volume uses capacity in its zone until it is deleted.
	w.createClaimInZone(t, "data", "a", "3Gi")
	w.WaitBound(t, "data")
	w.waitCapacities(t, fast+" a 7Gi", fast+" b 10Gi")
	w.DeleteClaim(t, "data")
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")
	w.WaitNothingLeft(t)

	// Classes and zones are added and removed. The capacity of a zone unknown to the driver is 0.
	slow := w.createDelayedClass(t, "-slow")
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi", slow+" a 10Gi", slow+" b 10Gi")
	w.addNode(t, "c")
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi", fast+" c 0", slow+" a 10Gi", slow+" b 10Gi", slow+" c 0")
	w.DeleteClass(t.Context(), t, slow)
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi", fast+" c 0")
	if err := w.deleteNode(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")

	// Deleted objects are created again, and others deleted.
	objects, err := w.listCapacities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.deleteCapacity(t, objects[0].Name)
	w.createCapacity(t, fast, "z", "1Gi", nil)
	w.createCapacity(t, fast, "b", "1Gi", nil)
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")
}

// A claim that finds no room shows that the published capacity is outdated. The
// scheduler must know before it selects another node.
func TestCapacityIsRefreshedAfterResourceExhausted(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	w.startPublisher(t)
	fast := w.createDelayedClass(t, "")
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")
	w.Driver.Reconfigure(func(o *csitest.Options) { o.Capacity = 1 << 30 }) // Without an event.
	w.createClaimInZone(t, "data", "a", "5Gi")
	w.waitCapacities(t, fast+" a 1Gi", fast+" b 10Gi")
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// A provisioner adopts what another one has published, be it this program or
// upstream's. It does not write what is correct, or not its own.
func TestCapacityOfOtherProvisionerIsAdopted(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	fast := w.createDelayedClass(t, "")
	right := w.createCapacity(t, fast, "a", "10Gi", nil)
	for range 3 {
		w.createCapacity(t, fast, "b", "7Gi", nil)
	}
	w.createCapacity(t, fast, "gone", "7Gi", nil)
	w.createCapacity(t, "gone", "a", "7Gi", nil)
	w.createCapacity(t, fast, "", "7Gi", func(o *storagev1.CSIStorageCapacity) { o.NodeTopology = nil })
	foreign := []*storagev1.CSIStorageCapacity{
		w.createCapacity(t, fast, "a", "7Gi", func(o *storagev1.CSIStorageCapacity) {
			o.Labels["csi.storage.k8s.io/managed-by"] = "external-provisioner-node-1"
		}),
		w.createCapacity(t, fast, "gone", "7Gi", func(o *storagev1.CSIStorageCapacity) {
			o.Labels["csi.storage.k8s.io/drivername"] = "other.example.com"
		}),
	}
	address := world.FreeAddress(t)
	w.startPublisher(t, "--http-endpoint="+address)
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")
	for _, before := range append(foreign, right) {
		after, err := w.Client.StorageV1().CSIStorageCapacities(w.Namespace).Get(t.Context(), before.Name, metav1.GetOptions{})
		if err != nil || after.ResourceVersion != before.ResourceVersion {
			t.Errorf("%s was written: %v", before.Name, err)
		}
	}
	for _, line := range []string{"csistoragecapacities_desired_goal 2", "csistoragecapacities_desired_current 2", "csistoragecapacities_obsolete 0"} {
		world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+"/metrics", line) })
	}
}

func TestPollingWritesOnlyChanges(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	p := w.startPublisher(t, "--capacity-poll-interval=200ms")
	fast := w.createDelayedClass(t, "")
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")
	versions := func() []string {
		objects, err := w.listCapacities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, o := range objects {
			all = append(all, o.Name+" "+o.ResourceVersion)
		}
		return all
	}
	polled := func(times int) {
		w.WaitCalls(t, csi.GetCapacity, w.Driver.Calls(csi.GetCapacity)+2*times) // There are two pairs of class and zone.
	}
	before := versions()
	polled(5)
	if diff := cmp.Diff(before, versions()); diff != "" {
		t.Errorf("objects were written without a change: %s", diff)
	}

	// While the driver is down all objects stay as they are; afterwards they are updated.
	w.Driver.Crash()
	w.Driver.Reconfigure(func(o *csitest.Options) { o.Capacity, o.MaxVolumeSize = 5<<30, 1<<30 })
	world.Eventually(t, func(context.Context) error {
		if n := strings.Count(p.Log(), "GetCapacity: Unavailable"); n < 4 {
			return fmt.Errorf("the driver was unavailable %d times", n)
		}
		return nil
	})
	if diff := cmp.Diff(before, versions()); diff != "" {
		t.Errorf("objects were written without the driver: %s", diff)
	}
	if err := w.Driver.Restart(); err != nil {
		t.Fatal(err)
	}
	w.waitCapacities(t, fast+" a 5Gi", fast+" b 5Gi")
	objects, err := w.listCapacities(t.Context())
	if err != nil || objects[0].MaximumVolumeSize.String() != "1Gi" {
		t.Errorf("the largest size is %v, %v", objects[0].MaximumVolumeSize, err)
	}
}

// Whenever a provisioner dies, each pair has one object when its successor is done.
// They write slowly, so that each dies a little later.
func TestCapacityIsPublishedOnceAfterCrashes(t *testing.T) {
	t.Parallel()
	w := newCapacityWorld(t)
	var want []string
	for i := range 5 {
		class := w.createDelayedClass(t, fmt.Sprint("-", i))
		want = append(want, class+" a 10Gi", class+" b 10Gi")
	}
	for n := range want {
		p := w.startPublisher(t, "--kube-api-capacity-qps=10", "--kube-api-capacity-burst=1")
		world.Eventually(t, func(ctx context.Context) error {
			objects, err := w.listCapacities(ctx)
			if err == nil && len(objects) < n {
				err = fmt.Errorf("there are %d objects", len(objects))
			}
			return err
		})
		p.Kill()
	}
	w.startPublisher(t)
	w.waitCapacities(t, want...)
}

// The objects are owned by the workload of the provisioner: nobody else would delete
// them.
func TestCapacityIsDeletedWithItsOwner(t *testing.T) {
	w := newCapacityWorld(t)
	t.Setenv("POD_NAME", "driver-0")
	core := w.Client.CoreV1()
	set, err := core.ConfigMaps(w.Namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "set"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	controller := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: set.Name, UID: set.UID, Controller: ptr.To(true)}
	_, err = core.Pods(w.Namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "driver-0", OwnerReferences: []metav1.OwnerReference{controller}},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{"no": "node"},
			Containers:   []corev1.Container{{Name: "main", Image: "none:1"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	fast := w.createDelayedClass(t, "")
	old := w.createCapacity(t, fast, "a", "10Gi", nil)
	p := w.startPublisher(t, "--capacity-ownerref-level=1")
	w.waitCapacities(t, fast+" a 10Gi", fast+" b 10Gi")
	world.Eventually(t, func(ctx context.Context) error {
		objects, err := w.listCapacities(ctx)
		if err != nil {
			return err
		}
		for _, o := range objects {
			if diff := cmp.Diff([]metav1.OwnerReference{controller}, o.OwnerReferences); diff != "" {
				return fmt.Errorf("object %s (%s was there before): %s", o.Name, old.Name, diff)
			}
		}
		return nil
	})
	p.Kill()
	if err := core.ConfigMaps(w.Namespace).Delete(t.Context(), set.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	w.waitCapacities(t)
}
