package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

// createReadySnapshot creates a snapshot of a volume at the driver, and the objects
// that a snapshot-controller would create for it.
func createReadySnapshot(t *testing.T, w *world.World, api client.Client, volume *corev1.PersistentVolume, name string) *snapshotv1.VolumeSnapshot {
	t.Helper()
	handle := w.CreateSnapshotAtDriver(t, w.Namespace+name, volume.Spec.CSI.VolumeHandle)
	snapshot, content, err := w.CreateSnapshotObjects(t.Context(), api, name, handle)
	must(t, err)
	t.Cleanup(func() { must(t, client.IgnoreNotFound(api.Delete(context.Background(), content))) })
	return snapshot
}

// must ends the test if there is an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// withSource makes a claim a clone of a claim, or a restore of a snapshot.
func withSource(kind, name string) func(*corev1.PersistentVolumeClaim) {
	group := ""
	if kind == "VolumeSnapshot" {
		group = "snapshot.storage.k8s.io"
	}
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{APIGroup: &group, Kind: kind, Name: name}
	}
}

// isProtected reports whether a provisioner protects a snapshot.
func isProtected(t *testing.T, api client.Client, snapshot *snapshotv1.VolumeSnapshot) bool {
	t.Helper()
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(snapshot), snapshot))
	return slices.Contains(snapshot.Finalizers, kube.SnapshotSourceFinalizer)
}

// withLabels gives a claim labels.
func withLabels(pairs ...string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Labels = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			c.Labels[pairs[i]] = pairs[i+1]
		}
	}
}

// createSecret creates a secret in the test's namespace with its own name as the value
// of "key".
func createSecret(t *testing.T, w *world.World, name string) {
	t.Helper()
	_, err := w.Client.CoreV1().Secrets(w.Namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{"key": name},
	}, metav1.CreateOptions{})
	must(t, err)
}

// waitForLog waits until a process has logged a message.
func waitForLog(t *testing.T, p *world.Process, message string) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		if !strings.Contains(p.Log(), message) {
			return errors.New("the log lacks: " + message)
		}
		return nil
	})
}

// checkRunning fails the test if a process has ended.
func checkRunning(t *testing.T, p *world.Process) {
	t.Helper()
	select {
	case <-p.Done():
		t.Errorf("the process has ended: %v", p.Err())
	default:
	}
}

// longLeases are durations that no test outlives: a new leader got the Lease from the
// old one.
func longLeases() []string {
	return []string{"--leader-election", "--leader-election-lease-duration=3h", "--leader-election-renew-deadline=2h", "--leader-election-retry-period=1h"}
}

// changeResponses changes the driver's responses to one method.
func changeResponses[R any](w *world.World, method csi.Method, change func(R)) {
	w.Driver.SetHooks(csitest.Hooks{After: func(_ context.Context, called csi.Method, _, resp any, err error) (any, error) {
		if r, ok := resp.(R); ok && called == method {
			change(r)
		}
		return resp, err
	}})
}

// fastRetries are arguments with which failures are retried within a second.
var fastRetries = []string{"--retry-interval-start=0.1", "--retry-interval-max=1"}

// instantRetries are arguments with which failures are retried at once.
var instantRetries = []string{"--retry-interval-start=100ms", "--retry-interval-max=200ms"}

// noRetries are arguments with which nothing is retried while a test runs: what failed
// once continues only if an event requeues it.
var noRetries = []string{"--retry-interval-start=1h", "--retry-interval-max=1h"}

// checkServed wants status 200 and a line in the body of a URL.
func checkServed(ctx context.Context, url, line string) error {
	body, err := world.HTTPGet(ctx, url)
	if err == nil && !strings.Contains("\n"+body+"\n", "\n"+line+"\n") {
		err = fmt.Errorf("%s lacks the line %s: %.3000s", url, line, body)
	}
	return err
}

// waitUnprotected waits until no provisioner protects the snapshots any more.
func waitUnprotected(t *testing.T, api client.Client, snapshots ...*snapshotv1.VolumeSnapshot) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		for _, s := range snapshots {
			if isProtected(t, api, s) {
				return fmt.Errorf("snapshot %s is still protected", s.Name)
			}
		}
		return nil
	})
}

// waitClaimProtection waits until a claim has, or lacks, the finalizer that protects the
// source of a snapshot.
func waitClaimProtection(t *testing.T, w *world.World, claim string, want bool) {
	t.Helper()
	w.WaitClaim(t, claim, func(c *corev1.PersistentVolumeClaim) error {
		if slices.Contains(c.Finalizers, snapshot.ClaimFinalizer) != want {
			return fmt.Errorf("claim %s has the finalizers %q, want the snapshot's among them: %t", claim, c.Finalizers, want)
		}
		return nil
	})
}

// waitNextSecond waits until the second of a time is over: the API server stores times
// in whole seconds.
func waitNextSecond(t *testing.T, after time.Time) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		if time.Now().Before(after.Add(time.Second)) {
			return errors.New("it is still the same second")
		}
		return nil
	})
}

// attachData creates volume data, and attaches it to node id-1.
func attachData(t *testing.T, w *world.World) (volume *corev1.PersistentVolume, attachment string) {
	t.Helper()
	volume = w.CreatePV(t, "data", nil)
	attachment = w.CreateAttachment(t, volume.Name, w.CreateCSINode(t, "node", "id-1"))
	w.WaitAttached(t, attachment)
	return volume, attachment
}

// detachAndWait deletes a VolumeAttachment and waits until it is gone.
func detachAndWait(t *testing.T, w *world.World, attachment string) {
	t.Helper()
	w.DeleteAttachment(t, attachment)
	w.WaitDetached(t, attachment)
}

// handWrittenPV is a PersistentVolume as an administrator writes it for a volume that
// exists at the driver.
func handWrittenPV(w *world.World, handle string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-" + w.Namespace},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: w.Namespace,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver: w.Name, VolumeHandle: handle, FSType: "ext4",
			}},
		},
	}
}
