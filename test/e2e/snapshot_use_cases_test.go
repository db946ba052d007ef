package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// These tests use snapshots as users do: with manifests, and pods that write and read.
func TestSnapshotUseCases(t *testing.T) {
	t.Parallel()
	w := newSnapshotNode(t)
	t.Run("uses", func(t *testing.T) {
		t.Run("the example works as its README says", w.testReadme)
		t.Run("a backup is restored to a new claim", w.testBackup)
		t.Run("backups are taken on a schedule, and old ones deleted", w.testSchedule)
		t.Run("a StatefulSet is rolled back", w.testRollback)
		t.Run("a test environment gets a clone", w.testClone)
		t.Run("another namespace gets a copy", w.testCrossNamespaceRestore)
		t.Run("a device is restored as a device", w.testBlockDevice)
		t.Run("a snapshot in use is of one moment", w.testConsistency)
		t.Run("a database on two volumes is of one moment", w.snapshotOfTwoVolumes)
		t.Run("a retained snapshot is imported", w.testImport)
	})
	w.checkNothingForbidden(t)
	if left := w.readme.run(t, w.readme.steps[4]); !strings.Contains(left, "No resources found") {
		t.Errorf("after the README's last step there is %s", left)
	}
	images := "ls /var/lib/holdfast/local/volumes /var/lib/holdfast/local/snapshots | grep img || true"
	if left := w.Run(t, w.Nodes[0], "sh", "-c", images); left != "" {
		t.Errorf("the driver has %s", left)
	}
}

// checkNothingForbidden fails if the manifests lack a permission.
func (w *snapshotNodeWorld) checkNothingForbidden(t *testing.T) {
	t.Helper()
	for _, line := range strings.Split(w.readme.run(t, logs), "\n") {
		if strings.Contains(line, "forbidden") {
			t.Error(line)
		}
	}
}

// withSmallSize makes a claim so small that copies take no time, then applies other
// changes.
func withSmallSize(changes ...func(*corev1.PersistentVolumeClaim)) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("48Mi")
		for _, change := range changes {
			change(c)
		}
	}
}

func withBlockMode(c *corev1.PersistentVolumeClaim) {
	c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
}

// createClaimWithPod creates a claim and a pod that writes a word to it.
func (w *snapshotNodeWorld) createClaimWithPod(t *testing.T, name, word string) {
	t.Helper()
	w.CreateClaim(t, name, withSmallSize())
	w.createPod(t, name, name, "echo "+word+" > /data/file; sync; echo ready")
	w.waitForPodLog(t, name, "ready")
}

// writeWord makes a pod write another word.
func (w *snapshotNodeWorld) writeWord(t *testing.T, pod, word string) {
	t.Helper()
	w.kubectl(t, "-n", w.Namespace, "exec", pod, "--", "sh", "-c", "echo "+word+" > /data/file; sync")
}

// checkContent checks that a claim's volume has a word.
func (w *snapshotNodeWorld) checkContent(t *testing.T, claim, word string) {
	t.Helper()
	w.createPod(t, "reader-"+claim, claim, "cat /data/file")
	w.waitForPodLog(t, "reader-"+claim, word)
	w.deletePod(t, "reader-"+claim)
}

// takeSnapshot takes a snapshot of a claim and waits until it is ready.
func (w *snapshotNodeWorld) takeSnapshot(t *testing.T, name, claim string) *snapshotv1.VolumeSnapshot {
	t.Helper()
	w.CreateSnapshot(t, w.api, name, claim, nil)
	return w.WaitSnapshotReady(t, w.api, name)
}

// restoreClaim creates a claim from a snapshot, and waits until it is bound.
func (w *snapshotNodeWorld) restoreClaim(t *testing.T, claim, snapshot string, changes ...func(*corev1.PersistentVolumeClaim)) {
	t.Helper()
	w.CreateClaim(t, claim, withSmallSize(append(changes, withSource("VolumeSnapshot", snapshot))...))
	w.WaitBound(t, claim)
}

// deleteAndWait deletes claims and snapshots, and returns when they are gone, also at
// the driver.
func (w *snapshotNodeWorld) deleteAndWait(t *testing.T, claims, snapshots []string) {
	t.Helper()
	for _, name := range snapshots {
		w.DeleteSnapshot(t, w.api, name)
		w.WaitSnapshotGone(t, w.api, name)
	}
	for _, name := range claims {
		volume := w.WaitBound(t, name)
		w.waitUnused(t, volume)
		w.DeleteClaim(t, name)
		w.WaitPVGone(t, volume)
	}
}

// waitUnused waits until the node does not use a volume any more whose pod is gone.
// The kubelet takes a moment, and an error of the driver meanwhile costs another one.
func (w *snapshotNodeWorld) waitUnused(t *testing.T, volume *corev1.PersistentVolume) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file") // All nodes see the machine's devices.
		must(t, err)
		for _, device := range devices {
			if image, err := os.ReadFile(device); err == nil && strings.Contains(string(image), volume.Spec.CSI.VolumeHandle) {
				return fmt.Errorf("%s is still used by the node", volume.Name)
			}
		}
		return nil
	})
}

// testBackup is the simple case: what the pod writes after the snapshot does not
// change it.
func (w *snapshotNodeWorld) testBackup(t *testing.T) {
	t.Parallel()
	w.createClaimWithPod(t, "kept", "old")
	w.takeSnapshot(t, "backup", "kept")
	w.writeWord(t, "kept", "new")
	w.restoreClaim(t, "restored", "backup")
	w.checkContent(t, "restored", "old")
	w.deletePod(t, "kept")
	w.checkContent(t, "kept", "new")
	w.deleteAndWait(t, []string{"kept", "restored"}, []string{"backup"})
}

// testSchedule takes scheduled backups, of which one is retained.
func (w *snapshotNodeWorld) testSchedule(t *testing.T) {
	t.Parallel()
	w.createClaimWithPod(t, "ledger", "monday")
	w.kubectl(t, "-n", w.Namespace, "label", "pvc/ledger", "backup=yes")
	backedUp := func(day string) string {
		said := strings.TrimSpace(w.readme.run(t, fmt.Sprintf(`set +x
			kubectl apply -n %[1]s -f - >&2 <<-Y
				apiVersion: holdfast.io/v1alpha1
				kind: SnapshotSchedule
				metadata: {name: daily}
				spec:
				  schedule: "@yearly"
				  trigger: %[2]s
				  claimSelector: {matchLabels: {backup: "yes"}}
				  retention: {maxCount: 1}
				  snapshotTemplate: {snapshotClassName: %[1]s}
			Y
			kubectl wait snapshotschedule daily -n %[1]s --for=jsonpath='{.status.lastTrigger}'=%[2]s --timeout=2m >&2
			echo
			kubectl get snapshotschedule daily -n %[1]s -o jsonpath='{.status.claims[0].lastReadySnapshot}'`, w.Namespace, day)))
		return said[strings.LastIndex(said, "\n")+1:]
	}
	backedUp("monday")
	w.writeWord(t, "ledger", "tuesday")
	backup := backedUp("tuesday")
	world.Eventually(t, func(ctx context.Context) error {
		out, err := w.tryKubectl(ctx, "-n", w.Namespace, "get", "volumesnapshots", "-l", "schedule.holdfast.io/name=daily", "-o", "name")
		if err == nil && strings.Count(out, "\n") != 1 {
			err = fmt.Errorf("the backups are %q, want one", out)
		}
		return err
	})
	w.writeWord(t, "ledger", "wednesday")
	w.restoreClaim(t, "of-tuesday", backup)
	w.checkContent(t, "of-tuesday", "tuesday")
	w.deletePod(t, "ledger")
	w.kubectl(t, "-n", w.Namespace, "delete", "snapshotschedule", "daily")
	w.deleteAndWait(t, []string{"ledger", "of-tuesday"}, []string{backup})
}

// testRollback replaces the claim of a replica by one with the same name.
func (w *snapshotNodeWorld) testRollback(t *testing.T) {
	t.Parallel()
	const pod, claim = "db-0", "data-db-0"
	sets := w.createDatabase(t)
	w.scaleDatabase(t, 1)
	w.waitForPodLog(t, pod, "ready")
	w.writeWord(t, pod, "version-1")
	w.takeSnapshot(t, "version-1", claim)
	w.writeWord(t, pod, "version-2")
	w.scaleDatabase(t, 0)
	w.deleteAndWait(t, []string{claim}, nil)
	w.restoreClaim(t, claim, "version-1")
	w.scaleDatabase(t, 1)
	w.waitForPodLog(t, pod, "version-1")
	w.scaleDatabase(t, 0)
	must(t, sets.Delete(t.Context(), "db", metav1.DeleteOptions{}))
	w.deleteAndWait(t, []string{claim}, []string{"version-1"})
}

// statefulSetDeleter is what a test does with StatefulSets.
type statefulSetDeleter interface {
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// createDatabase creates a StatefulSet db without replicas, which log the content of
// their volumes.
func (w *snapshotNodeWorld) createDatabase(t *testing.T) statefulSetDeleter {
	t.Helper()
	labels := map[string]string{"app": "db"}
	claim := corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &w.Namespace, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{}},
		},
	}
	withSmallSize()(&claim)
	sets := w.Client.AppsV1().StatefulSets(w.Namespace)
	_, err := sets.Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "db"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: ptr.To(int32(0)), ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: ptr.To(int64(0)),
					Containers: []corev1.Container{{
						Name: "main", Image: cluster.BusyboxImage, Command: []string{"sh", "-c", "cat /data/file; echo ready; sleep 100000"},
						VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
					}},
				},
			},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{claim},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	return sets
}

// scaleDatabase returns when the StatefulSet db has that number of pods.
func (w *snapshotNodeWorld) scaleDatabase(t *testing.T, replicas int) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := w.Client.AppsV1().StatefulSets(w.Namespace).Patch(t.Context(), "db", types.MergePatchType, patch, metav1.PatchOptions{})
	must(t, err)
	world.Eventually(t, func(ctx context.Context) error {
		pods, err := w.Client.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=db"})
		if err == nil && len(pods.Items) != replicas {
			err = fmt.Errorf("there are %d pods, want %d", len(pods.Items), replicas)
		}
		return err
	})
}

// testClone clones the volume of a running pod without a snapshot. Changes of the
// clone do not affect the source.
func (w *snapshotNodeWorld) testClone(t *testing.T) {
	t.Parallel()
	w.createClaimWithPod(t, "production", "real")
	w.CreateClaim(t, "clone", withSmallSize(withSource("PersistentVolumeClaim", "production")))
	w.WaitBound(t, "clone")
	w.createPod(t, "experiment", "clone", "cat /data/file; echo broken > /data/file; sync; echo done")
	w.waitForPodLog(t, "experiment", "real")
	w.waitForPodLog(t, "experiment", "done")
	w.deletePod(t, "experiment")
	w.deletePod(t, "production")
	w.checkContent(t, "production", "real")
	w.deleteAndWait(t, []string{"clone", "production"}, nil)
}

// testCrossNamespaceRestore restores a snapshot of another namespace, with a grant of
// that namespace.
func (w *snapshotNodeWorld) testCrossNamespaceRestore(t *testing.T) {
	t.Parallel()
	there := *w
	there.World = inNewNamespace(t, w.World)
	class := w.Namespace
	there.CreateClaim(t, "data", withSmallSize(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &class }))
	there.createPod(t, "writer", "data", "echo shared > /data/file; sync; echo ready")
	there.waitForPodLog(t, "writer", "ready")
	there.CreateSnapshot(t, w.api, "shared", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class })
	there.WaitSnapshotReady(t, w.api, "shared")
	group := snapshotv1.GroupName
	createGrant(t, w.World, there.Namespace, corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: "shared"})
	w.CreateClaim(t, "copied", withSmallSize(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Namespace: &there.Namespace, Name: "shared"}
	}))
	w.checkContent(t, "copied", "shared")
	there.deletePod(t, "writer")
	there.deleteAndWait(t, []string{"data"}, []string{"shared"})
	w.deleteAndWait(t, []string{"copied"}, nil)
}

// testBlockDevice restores block devices completely, and not as filesystems.
func (w *snapshotNodeWorld) testBlockDevice(t *testing.T) {
	t.Parallel()
	w.CreateClaim(t, "device", withSmallSize(withBlockMode))
	w.createPod(t, "device", "device", "echo kept | dd of=/dev/data bs=512 seek=80000 conv=sync; sync; echo ready")
	w.waitForPodLog(t, "device", "ready")
	w.deletePod(t, "device")
	w.waitUnused(t, w.WaitBound(t, "device")) // This node's disk cannot copy a device instantly.
	w.takeSnapshot(t, "of-device", "device")
	w.CreateClaim(t, "as-files", withSmallSize(withSource("VolumeSnapshot", "of-device")))
	w.WaitClaimEvent(t, "as-files", corev1.EventTypeWarning, "ProvisioningFailed", "Block")
	w.DeleteClaim(t, "as-files")
	w.restoreClaim(t, "as-device", "of-device", withBlockMode)
	w.createPod(t, "reader-device", "as-device", "dd if=/dev/data bs=512 skip=80000 count=1 | head -c 4; echo")
	w.waitForPodLog(t, "reader-device", "kept")
	w.deletePod(t, "reader-device")
	w.deleteAndWait(t, []string{"device", "as-device"}, []string{"of-device"})
}

// testConsistency takes snapshots while a pod writes each entry to one file and then
// to another, each synced to disk. A snapshot of one moment has as many entries in
// both files, or one more in the first. Its filesystem is clean, because it was frozen
// for the snapshot.
func (w *snapshotNodeWorld) testConsistency(t *testing.T) {
	t.Parallel()
	w.CreateClaim(t, "pairs", withSmallSize())
	w.createPod(t, "pairs", "pairs", `
		append() { echo "$1" | dd of=/data/$2 oflag=append conv=notrunc,fsync 2>/dev/null; }
		n=0
		while :; do n=$((n + 1)); append $n first; append $n second; test $n != 20 || echo ready; done`)
	w.waitForPodLog(t, "pairs", "ready")
	handles := map[string]string{}
	for i := range 3 {
		name := fmt.Sprintf("moment-%d", i)
		before := w.countPairs(t)
		handles[name] = *w.WaitContent(t, w.api, w.takeSnapshot(t, name, "pairs")).Status.SnapshotHandle
		world.Eventually(t, func(context.Context) error {
			if w.countPairs(t) == before {
				return errors.New("the pod does not continue after the snapshot")
			}
			return nil
		})
	}
	for name, handle := range handles {
		image := "/var/lib/holdfast/local/snapshots/" + handle + ".img"
		if out := w.Run(t, w.Nodes[0], "dumpe2fs", "-h", image); strings.Contains(out, "needs_recovery") {
			t.Errorf("%s was not frozen when it was copied: its journal must be replayed\n%s", name, out)
		}
		if out, err := w.TryRun(t.Context(), w.Nodes[0], "e2fsck", "-fn", image); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	w.restoreClaim(t, "of-moment", "moment-1")
	w.createPod(t, "reader-pairs", "of-moment", `
		a=$(wc -l < /data/first) b=$(wc -l < /data/second)
		seq $a | cmp - /data/first && seq $b | cmp - /data/second || echo damaged
		expr $a - $b | tr 01 yy`)
	w.waitForPodLog(t, "reader-pairs", "y")
	w.deletePod(t, "reader-pairs")
	w.deletePod(t, "pairs")
	w.deleteAndWait(t, []string{"pairs", "of-moment"}, []string{"moment-0", "moment-1", "moment-2"})
}

// countPairs returns how many entries the pod has written.
func (w *snapshotNodeWorld) countPairs(t *testing.T) string {
	t.Helper()
	return w.kubectl(t, "-n", w.Namespace, "exec", "pairs", "--", "wc", "-l", "/data/second")
}

// testImport deletes a snapshot that is retained at the driver, and creates new
// objects for it, as in another cluster.
func (w *snapshotNodeWorld) testImport(t *testing.T) {
	t.Parallel()
	w.createClaimWithPod(t, "original", "treasure")
	class := w.CreateSnapshotClass(t, w.api, func(c *snapshotv1.VolumeSnapshotClass) {
		c.Name, c.DeletionPolicy = w.Namespace+"-retain", snapshotv1.VolumeSnapshotContentRetain
	})
	w.CreateSnapshot(t, w.api, "kept", "original", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class.Name })
	content := w.WaitContent(t, w.api, w.WaitSnapshotReady(t, w.api, "kept"))
	w.deletePod(t, "original")
	w.deleteAndWait(t, []string{"original"}, []string{"kept"})
	must(t, w.api.Delete(t.Context(), content))

	createContent(t, w.World, w.api, "imported", preProvisioned(*content.Status.SnapshotHandle, snapshotv1.VolumeSnapshotContentDelete))
	w.CreateSnapshot(t, w.api, "imported", "", fromContent(w.Namespace+"-imported"))
	w.WaitSnapshotReady(t, w.api, "imported")
	w.restoreClaim(t, "of-import", "imported")
	w.checkContent(t, "of-import", "treasure")
	w.deleteAndWait(t, []string{"of-import"}, []string{"imported"})
}
