package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// attacherExample has the two replicas of the example csi-attacher.
type attacherExample struct {
	*readmeRunner
	localWorld
}

const attacherLease = "external-attacher-leader-attach-local-holdfast-io"

// The test follows the README of the example, with a manifest that was not written for
// this program. One replica acts; the other takes over when the first is stopped, and
// when it dies.
func TestAttacherExampleWorksAsItsReadmeSays(t *testing.T) {
	t.Parallel() // It mostly waits for a Lease to expire.
	r := newReadmeRunner(t, cluster.New(t, cluster.WithNodes(1)), "csi-attacher", "load", "apply", "use", "look", "hand over", "drop", "remove")
	w := &attacherExample{r, localWorld{&world.World{Cluster: r.Cluster, Name: "attach.local.holdfast.io"}}}
	load, apply, use, look, handOver, drop, remove := r.steps[0], r.steps[1], r.steps[2], r.steps[3], r.steps[4], r.steps[5], r.steps[6]
	r.cleanUpWith(t, `kubectl describe pvc,pod || true
		kubectl get volumeattachments -o yaml || true
		kubectl -n kube-system describe pod -l app=csi-controller || true
		kubectl -n kube-system logs -l app=csi-controller --all-containers --prefix --tail=50 || true`,
		"kubectl delete -f examples/csi-attacher/pod.yaml --ignore-not-found", remove)

	r.run(t, load, apply)
	if out := r.run(t, use); !strings.Contains(out, "\nkept\n") {
		t.Errorf("the pod's file: %s", out)
	}
	claim, err := w.Client.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "example-pvc", metav1.GetOptions{})
	must(t, err)
	volume, err := w.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	must(t, err)
	attachment, err := w.attachmentOf(t.Context(), volume.Name)
	must(t, err)
	holders := w.watchHolders(t)
	first := nextHolder(t, holders).name
	w.checkOneLeader(t, r.run(t, look), first, volume.Spec.CSI.VolumeHandle)

	second := w.deleteLeader(t, handOver, holders, first)
	w.killLeader(t, holders, second)
	if after, err := w.attachmentOf(t.Context(), volume.Name); err != nil || after.ResourceVersion != attachment.ResourceVersion {
		t.Errorf("a successor changed an existing attachment from %+v to %+v, %v", attachment, after, err)
	}

	r.run(t, "volume="+volume.Name, drop)
	if left := w.Run(t, w.Nodes[0], "sh", "-c", "cd /var/lib/holdfast/shared && find volumes attached -type f"); left != "" {
		t.Errorf("the driver still has %s", left)
	}
	r.run(t, remove)
}

// checkOneLeader checks what both replicas serve, and that only the leader has called
// the driver for the volume.
func (w *attacherExample) checkOneLeader(t *testing.T, served, leader, handle string) {
	t.Helper()
	for _, want := range []string{"ok", fmt.Sprintf("leader_election_master_status{name=%q} 1", attacherLease), fmt.Sprintf("leader_election_master_status{name=%q} 0", attacherLease)} {
		if !strings.Contains(served, want) {
			t.Errorf("the replicas do not serve %q but: %s", want, served)
		}
	}
	for _, pod := range []string{"csi-controller-0", "csi-controller-1"} {
		leads := pod == podOf(leader)
		if n := w.countPublishCalls(t, pod, handle); (n == 1) != leads {
			t.Errorf("the driver of %s was called %d times to attach the volume, and the leader is %s", pod, n, leader)
		}
		// If both act, not both need to have called the driver.
		if worked := w.hasReconciled(t, pod); worked != leads {
			t.Errorf("%s has reconciled VolumeAttachments: %t, and the leader is %s", pod, worked, leader)
		}
	}
	// It is logged at --v=5 only.
	if log := w.podLog(t, podOf(leader), "external-attacher"); !strings.Contains(log, "Sent a request to the driver") {
		t.Errorf("--v=5 has no effect: %s", log)
	}
}

// deleteLeader deletes the leader's pod and returns its successor. With the manifest's
// Lease, time does not show whether the Lease was released or has expired; the fields
// that its holder leaves do.
func (w *attacherExample) deleteLeader(t *testing.T, handOver string, holders <-chan leaseHolder, leader string) (successor string) {
	t.Helper()
	began := time.Now()
	w.run(t, handOver)
	free := nextHolder(t, holders)
	if !free.released {
		t.Errorf("the Lease went from %s to %s: it expired and was not released", leader, free.name)
		return free.name
	}
	taken := nextHolder(t, holders)
	if podOf(taken.name) == podOf(leader) {
		t.Errorf("the successor is %s, of the same pod: the other replica did not take over", taken.name)
	}
	t.Logf("measured: a leader was deleted, and the other replica had the Lease after %s, %s after it was released",
		taken.since.Sub(began).Round(time.Millisecond), taken.since.Sub(free.since).Round(time.Millisecond))
	return taken.name
}

// killLeader kills the leader's process, and requests a volume before another one
// takes over. It needs no pod: a kubelet would retry less and less often meanwhile.
func (w *attacherExample) killLeader(t *testing.T, holders <-chan leaseHolder, leader string) {
	t.Helper()
	w.CreateClaim(t, "gap", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("local-attach") })
	volume := w.WaitBound(t, "gap")
	pod, err := w.Client.CoreV1().Pods("kube-system").Get(t.Context(), podOf(leader), metav1.GetOptions{})
	must(t, err)
	_, id, _ := strings.Cut(containerStatus(pod, "external-attacher").ContainerID, "://")
	began := time.Now()
	w.Run(t, w.Nodes[0], "ctr", "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", id)
	name := w.CreateAttachment(t, volume.Name, w.Nodes[0])
	taken := nextHolder(t, holders)
	if taken.released {
		t.Errorf("%s released the Lease, so it was not killed", leader)
	}
	if taken.name == "" { // A standby has released the expired Lease.
		taken = nextHolder(t, holders)
	}
	created := w.WaitAttached(t, name).CreationTimestamp
	t.Logf("measured: a leader was killed, and %s had the Lease after %s; the VolumeAttachment was created at %s and the Lease acquired at %s",
		podOf(taken.name), taken.since.Sub(began).Round(time.Millisecond), created.Format(time.TimeOnly), taken.since.Format(time.TimeOnly))
	if n := w.countPublishCalls(t, "csi-controller-0", volume.Spec.CSI.VolumeHandle) + w.countPublishCalls(t, "csi-controller-1", volume.Spec.CSI.VolumeHandle); n != 1 {
		t.Errorf("the drivers were called %d times to attach the volume", n)
	}
	detachAndWait(t, w.World, name)
	w.DeleteClaim(t, "gap")
	w.WaitPVGone(t, volume)
}

// leaseHolder is the holder of the Lease, "" for nobody, and when it was observed.
type leaseHolder struct {
	name     string
	released bool // it was released, which sets its duration to one second
	since    time.Time
}

// watchHolders returns the current holder of the Lease and all later ones.
func (w *attacherExample) watchHolders(t *testing.T) <-chan leaseHolder {
	t.Helper()
	changes, err := w.Client.CoordinationV1().Leases("kube-system").Watch(t.Context(), metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("metadata.name", attacherLease).String(),
	})
	must(t, err)
	t.Cleanup(changes.Stop)
	all := make(chan leaseHolder, 100)
	go func() {
		defer close(all)
		last := leaseHolder{name: "nobody yet"}
		for change := range changes.ResultChan() {
			lease, ok := change.Object.(*coordinationv1.Lease)
			if !ok { // The test has ended, and with it the watch.
				return
			}
			name := ptr.Deref(lease.Spec.HolderIdentity, "")
			given := name == "" && ptr.Deref(lease.Spec.LeaseDurationSeconds, 0) == 1
			if now := (leaseHolder{name, given, time.Now()}); now.name != last.name {
				all <- now
				last = now
			}
		}
	}()
	return all
}

// nextHolder waits for the next holder.
func nextHolder(t *testing.T, holders <-chan leaseHolder) leaseHolder {
	t.Helper()
	select {
	case h, ok := <-holders:
		if !ok {
			t.Fatal("the watch of the Lease has ended")
		}
		return h
	case <-time.After(world.Timeout):
		t.Fatalf("nobody else has had the Lease for %s", world.Timeout)
		return leaseHolder{}
	}
}

// podOf returns the pod of a holder, whose name starts with the pod's.
func podOf(holder string) string {
	pod, _, _ := strings.Cut(holder, "_")
	return pod
}

// attachmentOf returns the only VolumeAttachment of a volume, which is attached.
func (w localWorld) attachmentOf(ctx context.Context, volume string) (*storagev1.VolumeAttachment, error) {
	list, err := w.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(list.Items, func(a storagev1.VolumeAttachment) bool {
		return ptr.Deref(a.Spec.Source.PersistentVolumeName, "") != volume
	})
	if len(all) != 1 || !all[0].Status.Attached {
		return nil, fmt.Errorf("the VolumeAttachments of %s: %+v", volume, all)
	}
	return &all[0], nil
}

// countPublishCalls counts the ControllerPublishVolume calls for a volume in the
// driver log of a pod.
func (w *attacherExample) countPublishCalls(t *testing.T, pod, handle string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(w.podLog(t, pod, "csi-driver")) {
		if strings.Contains(line, "/ControllerPublishVolume") && strings.Contains(line, handle) {
			n++
		}
	}
	return n
}

// hasReconciled reports whether a replica has reconciled a VolumeAttachment.
func (w *attacherExample) hasReconciled(t *testing.T, pod string) bool {
	t.Helper()
	metrics, err := w.Client.CoreV1().RESTClient().Get().AbsPath("/api/v1/namespaces/kube-system/pods", pod+":8080", "proxy/metrics").DoRaw(t.Context())
	must(t, err)
	for line := range strings.Lines(string(metrics)) {
		if strings.HasPrefix(line, `controller_runtime_reconcile_total{controller="attach",`) && !strings.HasSuffix(line, " 0\n") {
			return true
		}
	}
	return false
}

func (w *attacherExample) podLog(t *testing.T, pod, container string) string {
	t.Helper()
	log, err := w.Client.CoreV1().Pods("kube-system").GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(t.Context())
	must(t, err)
	return string(log)
}

func containerStatus(pod *corev1.Pod, name string) corev1.ContainerStatus {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == name {
			return status
		}
	}
	return corev1.ContainerStatus{}
}
