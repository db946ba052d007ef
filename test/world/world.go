// Package world is shared by the tests of the whole program: a real cluster, a driver
// that records its calls, the program as separate processes, and functions that do what
// users do and wait for the result.
//
//	func TestMain(m *testing.M) { os.Exit(world.Main(m)) }
//
//	func TestClaim(t *testing.T) {
//		w := world.New(t, csitest.Options{})
//		w.StartProvisioner(t)
//		w.CreateClass(t, nil)
//		w.CreateClaim(t, "data", nil)
//		w.WaitBound(t, "data")
//		w.DeleteClaim(t, "data")
//		w.WaitNothingLeft(t)
//	}
//
// Every world has a namespace, a driver and a class of its own, so tests run in
// parallel and do not see each other's claims. Whatever waits, waits for a
// condition, for up to [Timeout].
package world

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/cluster"
)

const (
	// Timeout is how long anything may take on a slow machine.
	Timeout = 2 * time.Minute
	// PollInterval is the pause between two checks.
	PollInterval = 50 * time.Millisecond
)

// A World is a cluster with a CSI driver. The driver's name is unique, so that tests
// do not see each other's claims. A test that brings its own driver sets Cluster and
// Name itself, and cannot use what needs Driver.
type World struct {
	*cluster.Cluster
	// Driver is the driver and records its calls; nil if it is not a csitest driver.
	Driver *csitest.Driver
	// Name is the driver's name.
	Name string
	// Socket is where the driver listens.
	Socket string
}

// New returns a world for a test and its subtests, in a cluster that has what the
// options ask for.
func New(t testing.TB, o csitest.Options, options ...cluster.Option) *World {
	t.Helper()
	return newWorld(t, cluster.New(t, options...), o)
}

// NewAPIOnly returns a world in an API server of its own. No controllers run there: the
// test plays them.
func NewAPIOnly(t testing.TB, o csitest.Options) *World {
	t.Helper()
	return newWorld(t, cluster.NewAPIOnly(t), o)
}

func newWorld(t testing.TB, c *cluster.Cluster, o csitest.Options) *World {
	t.Helper()
	o.Name = "csitest." + c.Namespace + ".example.com"
	driver := csitest.New(o)
	return &World{Cluster: c, Driver: driver, Name: o.Name, Socket: driver.Serve(t)}
}

// ConnectDriver returns a connection to the world's driver, which is ready. It is
// closed when the test ends.
func (w *World) ConnectDriver(t testing.TB) *csi.Driver {
	t.Helper()
	driver, err := csi.Connect(t.Context(), csi.Options{Address: w.Socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	if _, err := driver.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return driver
}

// CreateClass creates a StorageClass of the driver. By default it has the namespace's
// name, which claims use by default. It is deleted when the test ends.
func (w *World) CreateClass(t testing.TB, change func(*storagev1.StorageClass)) *storagev1.StorageClass {
	t.Helper()
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, Provisioner: w.Name}
	if change != nil {
		change(class)
	}
	return create(t, w.Client.StorageV1().StorageClasses(), deleteObject, class)
}

// DeleteClass deletes a StorageClass. It succeeds if the class is gone already.
func (w *World) DeleteClass(ctx context.Context, t testing.TB, name string) {
	t.Helper()
	deleteObject(ctx, t, w.Client.StorageV1().StorageClasses(), name)
}

// CreateClaim creates a claim of the world's class for 1 GiB.
func (w *World) CreateClaim(t testing.TB, name string, change func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: ptr.To(w.Namespace),
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if change != nil {
		change(claim)
	}
	made, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Create(t.Context(), claim, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// DeleteClaim deletes a claim without waiting until it is gone.
func (w *World) DeleteClaim(t testing.TB, name string) {
	t.Helper()
	if err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// SetReclaimPolicy changes the reclaim policy of a PersistentVolume.
func (w *World) SetReclaimPolicy(t testing.TB, volume string, policy corev1.PersistentVolumeReclaimPolicy) {
	t.Helper()
	patch := fmt.Sprintf(`{"spec":{"persistentVolumeReclaimPolicy":%q}}`, policy)
	_, err := w.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// ListPVs returns the PersistentVolumes of the world's driver.
func (w *World) ListPVs(ctx context.Context) ([]corev1.PersistentVolume, error) {
	list, err := w.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var own []corev1.PersistentVolume
	for _, v := range list.Items {
		if v.Spec.CSI != nil && v.Spec.CSI.Driver == w.Name {
			own = append(own, v)
		}
	}
	return own, nil
}
