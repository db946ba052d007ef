package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/test/world"
)

// snapshotOfTwoVolumes takes group snapshots of a database that writes each entry
// first to its log, on one volume, and then to its data, on another. In a snapshot of
// one moment the log has as many entries as the data, or one more. Snapshots that were
// taken one after the other do not.
func (w *snapshotNodeWorld) snapshotOfTwoVolumes(t *testing.T) {
	t.Parallel()
	w.CreateGroupClass(t, w.api, nil)
	for _, part := range []string{"bank-log", "bank-data"} {
		w.CreateClaim(t, part, withSmallSize(withLabels("app", "bank")))
	}
	w.createBankPod(t, "bank", "bank-log", "bank-data", `
		append() { echo "$1" | dd of=/$2/entries oflag=append conv=notrunc,fsync 2>/dev/null; }
		n=0
		while :; do n=$((n + 1)); append $n log; append $n data; test $n != 20 || echo ready; done`)
	w.waitForPodLog(t, "bank", "ready")
	for i := range 3 {
		name := fmt.Sprintf("bank-%d", i)
		w.CreateGroup(t, w.api, name, metav1.LabelSelector{MatchLabels: map[string]string{"app": "bank"}}, nil)
		members := w.ListMembers(t, w.api, w.WaitGroupReady(t, w.api, name))
		log, data := members["bank-log"], members["bank-data"]
		ahead := w.countEntries(t, &log) - w.countEntries(t, &data)
		if ahead != 0 && ahead != 1 {
			t.Errorf("in group snapshot %s the log is %d entries ahead of the data", name, ahead)
		}
	}
	last := fmt.Sprintf("bank-%d", 2)
	members := w.ListMembers(t, w.api, w.WaitGroupReady(t, w.api, last))
	w.restoreClaim(t, "bank-log-restored", members["bank-log"].Name)
	w.restoreClaim(t, "bank-data-restored", members["bank-data"].Name)
	w.createBankPod(t, "bank-restored", "bank-log-restored", "bank-data-restored",
		`expr $(wc -l < /log/entries) - $(wc -l < /data/entries) | tr 01 yy`)
	w.waitForPodLog(t, "bank-restored", "y")
	w.deletePod(t, "bank-restored")
	w.deletePod(t, "bank")
	for i := range 3 {
		w.DeleteGroup(t, w.api, fmt.Sprintf("bank-%d", i))
	}
	world.Eventually(t, func(ctx context.Context) error {
		left, err := w.ListGroupContents(ctx, w.api)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d contents of groups still exist", len(left))
		}
		return err
	})
	w.deleteAndWait(t, []string{"bank-log", "bank-data", "bank-log-restored", "bank-data-restored"}, nil)
}

// createBankPod creates a pod with a claim at /log and another one at /data.
func (w *snapshotNodeWorld) createBankPod(t *testing.T, name, log, data, script string) {
	t.Helper()
	w.readme.run(t, fmt.Sprintf(`kubectl apply -n %s -f - <<-'Y'
		apiVersion: v1
		kind: Pod
		metadata: {name: %s}
		spec:
		  terminationGracePeriodSeconds: 0
		  containers:
		  - name: main
		    image: devcluster.local/busybox:1
		    command: [sh, -ec, %q]
		    volumeMounts: [{name: log, mountPath: /log}, {name: data, mountPath: /data}]
		  volumes:
		  - {name: log, persistentVolumeClaim: {claimName: %s}}
		  - {name: data, persistentVolumeClaim: {claimName: %s}}
	Y`, w.Namespace, name, strings.ReplaceAll(script, "\t", " ")+"\nsleep 100000", log, data))
}

// countEntries returns the number of entries in a member of a group, at the driver.
func (w *snapshotNodeWorld) countEntries(t *testing.T, member *snapshotv1.VolumeSnapshot) int {
	t.Helper()
	content := &snapshotv1.VolumeSnapshotContent{}
	must(t, w.api.Get(t.Context(), client.ObjectKey{Name: *member.Status.BoundVolumeSnapshotContentName}, content))
	handle := *content.Status.SnapshotHandle
	return strings.Count(w.Run(t, w.Nodes[0], "debugfs", "-R", "cat /entries", "/var/lib/holdfast/local/snapshots/"+handle+".img"), "\n")
}
