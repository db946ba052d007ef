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

// What users take snapshots for is done by the hands of users: with the
// manifests that they apply, and pods that write and read.
func TestWhatSnapshotsAreFor(t *testing.T) {
	t.Parallel()
	w := newSnapshotNode(t)
	t.Run("uses", func(t *testing.T) {
		t.Run("the example works as its README says", w.example)
		t.Run("a backup is restored to a new claim", w.backup)
		t.Run("backups are taken again and again, and the old ones removed", w.scheduled)
		t.Run("a StatefulSet goes back to what it was", w.rollback)
		t.Run("a test environment gets a clone", w.clone)
		t.Run("another namespace gets a copy", w.copied)
		t.Run("a device is restored as a device", w.device)
		t.Run("a snapshot in use is of one moment", w.moment)
		t.Run("a database on two volumes is of one moment", w.momentOfTwo)
		t.Run("what was kept is imported", w.imported)
	})
	w.nothingForbidden(t)
	if left := w.play(t, w.steps[4]); !strings.Contains(left, "No resources found") {
		t.Errorf("after the README's last step there is %s", left)
	}
	images := "ls /var/lib/holdfast/local/volumes /var/lib/holdfast/local/snapshots | grep img || true"
	if left := w.Run(t, w.Nodes[0], "sh", "-c", images); left != "" {
		t.Errorf("the driver has %s", left)
	}
}

// nothingForbidden fails if a role lacked a right that the manifests should give it.
func (w *snapshotWorld) nothingForbidden(t *testing.T) {
	t.Helper()
	for _, line := range strings.Split(w.play(t, logs), "\n") {
		if strings.Contains(line, "forbidden") {
			t.Error(line)
		}
	}
}

// small is a claim that takes no time to copy, then changes of it.
func small(changes ...func(*corev1.PersistentVolumeClaim)) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("48Mi")
		for _, change := range changes {
			change(c)
		}
	}
}

func block(c *corev1.PersistentVolumeClaim) {
	c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)
}

// keeps makes a claim with a pod that writes a word to it.
func (w *snapshotWorld) keeps(t *testing.T, name, word string) {
	t.Helper()
	w.Claim(t, name, small())
	w.pod(t, name, name, "echo "+word+" > /data/file; sync; echo ready")
	w.says(t, name, "ready")
}

// write has a pod write another word.
func (w *snapshotWorld) write(t *testing.T, pod, word string) {
	t.Helper()
	w.kubectl(t, "-n", w.Namespace, "exec", pod, "--", "sh", "-c", "echo "+word+" > /data/file; sync")
}

// has fails unless a claim's volume has a word in it.
func (w *snapshotWorld) has(t *testing.T, claim, word string) {
	t.Helper()
	w.pod(t, "reader-"+claim, claim, "cat /data/file")
	w.says(t, "reader-"+claim, word)
	w.dropPod(t, "reader-"+claim)
}

func (w *snapshotWorld) snap(t *testing.T, name, claim string) *snapshotv1.VolumeSnapshot {
	t.Helper()
	w.Snapshot(t, w.api, name, claim, nil)
	return w.SnapshotReady(t, w.api, name)
}

// restore makes a claim from a snapshot, and returns when it has its volume.
func (w *snapshotWorld) restore(t *testing.T, claim, snapshot string, changes ...func(*corev1.PersistentVolumeClaim)) {
	t.Helper()
	w.Claim(t, claim, small(append(changes, from("VolumeSnapshot", snapshot))...))
	w.Bound(t, claim)
}

// end deletes claims and snapshots, and returns when they are gone everywhere.
func (w *snapshotWorld) end(t *testing.T, claims, snapshots []string) {
	t.Helper()
	for _, name := range snapshots {
		w.DropSnapshot(t, w.api, name)
		w.SnapshotGone(t, w.api, name)
	}
	for _, name := range claims {
		volume := w.Bound(t, name)
		w.unused(t, volume)
		w.DropClaim(t, name)
		w.Gone(t, volume)
	}
}

// unused waits until the node has let go of a volume whose pod is gone. Kubelet
// takes a moment, and the driver's refusal meanwhile costs another one.
func (w *snapshotWorld) unused(t *testing.T, volume *corev1.PersistentVolume) {
	t.Helper()
	world.Eventually(t, func(context.Context) error {
		devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file") // All nodes have those of the machine.
		must(t, err)
		for _, device := range devices {
			if image, err := os.ReadFile(device); err == nil && strings.Contains(string(image), volume.Spec.CSI.VolumeHandle) {
				return fmt.Errorf("%s is still used by the node", volume.Name)
			}
		}
		return nil
	})
}

// backup is the plain case: the pod goes on, and what it does later makes no
// difference to the copy.
func (w *snapshotWorld) backup(t *testing.T) {
	t.Parallel()
	w.keeps(t, "kept", "old")
	w.snap(t, "backup", "kept")
	w.write(t, "kept", "new")
	w.restore(t, "restored", "backup")
	w.has(t, "restored", "old")
	w.dropPod(t, "kept")
	w.has(t, "kept", "new")
	w.end(t, []string{"kept", "restored"}, []string{"backup"})
}

// scheduled has backups taken when it is time, of which one is kept.
func (w *snapshotWorld) scheduled(t *testing.T) {
	t.Parallel()
	w.keeps(t, "ledger", "monday")
	w.kubectl(t, "-n", w.Namespace, "label", "pvc/ledger", "backup=yes")
	backedUp := func(day string) string {
		said := strings.TrimSpace(w.play(t, fmt.Sprintf(`set +x
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
	w.write(t, "ledger", "tuesday")
	backup := backedUp("tuesday")
	world.Eventually(t, func(ctx context.Context) error {
		out, err := w.tryKubectl(ctx, "-n", w.Namespace, "get", "volumesnapshots", "-l", "schedule.holdfast.io/name=daily", "-o", "name")
		if err == nil && strings.Count(out, "\n") != 1 {
			err = fmt.Errorf("there are the backups %q, and one is to be kept", out)
		}
		return err
	})
	w.write(t, "ledger", "wednesday")
	w.restore(t, "of-tuesday", backup)
	w.has(t, "of-tuesday", "tuesday")
	w.dropPod(t, "ledger")
	w.kubectl(t, "-n", w.Namespace, "delete", "snapshotschedule", "daily")
	w.end(t, []string{"ledger", "of-tuesday"}, []string{backup})
}

// rollback replaces the claim of a replica by one of the same name.
func (w *snapshotWorld) rollback(t *testing.T) {
	t.Parallel()
	const pod, claim = "db-0", "data-db-0"
	sets := w.database(t)
	w.scale(t, 1)
	w.says(t, pod, "ready")
	w.write(t, pod, "version-1")
	w.snap(t, "version-1", claim)
	w.write(t, pod, "version-2")
	w.scale(t, 0)
	w.end(t, []string{claim}, nil)
	w.restore(t, claim, "version-1")
	w.scale(t, 1)
	w.says(t, pod, "version-1")
	w.scale(t, 0)
	must(t, sets.Delete(t.Context(), "db", metav1.DeleteOptions{}))
	w.end(t, []string{claim}, []string{"version-1"})
}

// setsOf is what a test does with StatefulSets.
type setsOf interface {
	Delete(ctx context.Context, name string, o metav1.DeleteOptions) error
}

// database makes a StatefulSet db without replicas, which say what they find.
func (w *snapshotWorld) database(t *testing.T) setsOf {
	t.Helper()
	labels := map[string]string{"app": "db"}
	claim := corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &w.Namespace, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{}},
		},
	}
	small()(&claim)
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

// scale returns when the StatefulSet db has so many pods.
func (w *snapshotWorld) scale(t *testing.T, replicas int) {
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

// clone copies the volume of a pod that goes on, without a snapshot, and what is
// done to the copy does not come back.
func (w *snapshotWorld) clone(t *testing.T) {
	t.Parallel()
	w.keeps(t, "production", "real")
	w.Claim(t, "clone", small(from("PersistentVolumeClaim", "production")))
	w.Bound(t, "clone")
	w.pod(t, "experiment", "clone", "cat /data/file; echo broken > /data/file; sync; echo done")
	w.says(t, "experiment", "real")
	w.says(t, "experiment", "done")
	w.dropPod(t, "experiment")
	w.dropPod(t, "production")
	w.has(t, "production", "real")
	w.end(t, []string{"clone", "production"}, nil)
}

// copied restores a snapshot of another namespace, which that one has granted.
func (w *snapshotWorld) copied(t *testing.T) {
	t.Parallel()
	there := *w
	there.World = abroad(t, w.World)
	class := w.Namespace
	there.Claim(t, "data", small(func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &class }))
	there.pod(t, "writer", "data", "echo shared > /data/file; sync; echo ready")
	there.says(t, "writer", "ready")
	there.Snapshot(t, w.api, "shared", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class })
	there.SnapshotReady(t, w.api, "shared")
	group := snapshotv1.GroupName
	grant(t, w.World, there.Namespace, corev1.TypedLocalObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Name: "shared"})
	w.Claim(t, "copied", small(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: &group, Kind: "VolumeSnapshot", Namespace: &there.Namespace, Name: "shared"}
	}))
	w.has(t, "copied", "shared")
	there.dropPod(t, "writer")
	there.end(t, []string{"data"}, []string{"shared"})
	w.end(t, []string{"copied"}, nil)
}

// device is about raw devices: whole, and not taken for filesystems.
func (w *snapshotWorld) device(t *testing.T) {
	t.Parallel()
	w.Claim(t, "device", small(block))
	w.pod(t, "device", "device", "echo kept | dd of=/dev/data bs=512 seek=80000 conv=sync; sync; echo ready")
	w.says(t, "device", "ready")
	w.dropPod(t, "device")
	w.unused(t, w.Bound(t, "device")) // This node's disk cannot copy a device in one instant.
	w.snap(t, "of-device", "device")
	w.Claim(t, "as-files", small(from("VolumeSnapshot", "of-device")))
	w.Told(t, "as-files", corev1.EventTypeWarning, "ProvisioningFailed", "Block")
	w.DropClaim(t, "as-files")
	w.restore(t, "as-device", "of-device", block)
	w.pod(t, "reader-device", "as-device", "dd if=/dev/data bs=512 skip=80000 count=1 | head -c 4; echo")
	w.says(t, "reader-device", "kept")
	w.dropPod(t, "reader-device")
	w.end(t, []string{"device", "as-device"}, []string{"of-device"})
}

// moment takes snapshots under a pod that always writes an entry to one file and
// then the same to another, each to the disk. A copy of one moment has as many
// entries in both, or one more in the first; and its filesystem is clean, because
// it was brought to rest for that moment, and not merely able to be repaired.
func (w *snapshotWorld) moment(t *testing.T) {
	t.Parallel()
	w.Claim(t, "pairs", small())
	w.pod(t, "pairs", "pairs", `
		append() { echo "$1" | dd of=/data/$2 oflag=append conv=notrunc,fsync 2>/dev/null; }
		n=0
		while :; do n=$((n + 1)); append $n first; append $n second; test $n != 20 || echo ready; done`)
	w.says(t, "pairs", "ready")
	handles := map[string]string{}
	for i := range 3 {
		name := fmt.Sprintf("moment-%d", i)
		before := w.entries(t)
		handles[name] = *w.Content(t, w.api, w.snap(t, name, "pairs")).Status.SnapshotHandle
		world.Eventually(t, func(context.Context) error {
			if w.entries(t) == before {
				return errors.New("the pod does not go on after the snapshot")
			}
			return nil
		})
	}
	for name, handle := range handles {
		image := "/var/lib/holdfast/local/snapshots/" + handle + ".img"
		if out := w.Run(t, w.Nodes[0], "dumpe2fs", "-h", image); strings.Contains(out, "needs_recovery") {
			t.Errorf("%s was not at rest when it was copied: its journal must be replayed\n%s", name, out)
		}
		if out, err := w.TryRun(t.Context(), w.Nodes[0], "e2fsck", "-fn", image); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	w.restore(t, "of-moment", "moment-1")
	w.pod(t, "reader-pairs", "of-moment", `
		a=$(wc -l < /data/first) b=$(wc -l < /data/second)
		seq $a | cmp - /data/first && seq $b | cmp - /data/second || echo damaged
		expr $a - $b | tr 01 yy`)
	w.says(t, "reader-pairs", "y")
	w.dropPod(t, "reader-pairs")
	w.dropPod(t, "pairs")
	w.end(t, []string{"pairs", "of-moment"}, []string{"moment-0", "moment-1", "moment-2"})
}

// entries is how many the pod has written.
func (w *snapshotWorld) entries(t *testing.T) string {
	t.Helper()
	return w.kubectl(t, "-n", w.Namespace, "exec", "pairs", "--", "wc", "-l", "/data/second")
}

// imported deletes a snapshot that is kept at the driver, and makes objects for
// it anew, as one does in another cluster.
func (w *snapshotWorld) imported(t *testing.T) {
	t.Parallel()
	w.keeps(t, "original", "treasure")
	class := w.SnapshotClass(t, w.api, func(c *snapshotv1.VolumeSnapshotClass) {
		c.Name, c.DeletionPolicy = w.Namespace+"-retain", snapshotv1.VolumeSnapshotContentRetain
	})
	w.Snapshot(t, w.api, "kept", "original", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class.Name })
	content := w.Content(t, w.api, w.SnapshotReady(t, w.api, "kept"))
	w.dropPod(t, "original")
	w.end(t, []string{"original"}, []string{"kept"})
	must(t, w.api.Delete(t.Context(), content))

	bring(t, w.World, w.api, "imported", at(*content.Status.SnapshotHandle, snapshotv1.VolumeSnapshotContentDelete))
	w.Snapshot(t, w.api, "imported", "", imports(w.Namespace+"-imported"))
	w.SnapshotReady(t, w.api, "imported")
	w.restore(t, "of-import", "imported")
	w.has(t, "of-import", "treasure")
	w.end(t, []string{"of-import"}, []string{"imported"})
}
