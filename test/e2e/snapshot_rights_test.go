package e2e

import (
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// right is what may be done with resources of an API group.
func right(group, verbs string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: strings.Fields(verbs)}
}

// Who replaces the images of upstream's two programs, and nothing else, has
// given them no further rights: also not for groups, and for drivers on each node.
func TestTheRightsOfUpstreamsManifestsAreEnoughForSnapshots(t *testing.T) {
	t.Parallel()
	const snapshots, groups = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
	controller := []rbacv1.PolicyRule{
		right("", "get list watch", "persistentvolumes", "nodes"),
		right("", "get list watch update", "persistentvolumeclaims"),
		right("", "list watch create update patch", "events"),
		right(snapshots, "get list watch", "volumesnapshotclasses"),
		right(snapshots, "create get list watch update delete patch", "volumesnapshotcontents"),
		right(snapshots, "patch", "volumesnapshotcontents/status"),
		right(snapshots, "create get list watch update patch delete", "volumesnapshots"),
		right(snapshots, "update patch", "volumesnapshots/status"),
		right(groups, "get list watch", "volumegroupsnapshotclasses"),
		right(groups, "create get list watch update delete patch", "volumegroupsnapshotcontents"),
		right(groups, "patch", "volumegroupsnapshotcontents/status"),
		right(groups, "get list watch update patch", "volumegroupsnapshots"),
		right(groups, "update patch", "volumegroupsnapshots/status"),
		right("coordination.k8s.io", "get watch list delete update create", "leases"),
	}
	snapshotter := []rbacv1.PolicyRule{
		right("", "list watch create update patch", "events"),
		right("", "get list", "secrets"), // It is commented out there, for drivers that want none.
		right(snapshots, "get list watch", "volumesnapshotclasses"),
		right(snapshots, "get list watch update patch", "volumesnapshotcontents"),
		right(snapshots, "update patch", "volumesnapshotcontents/status"),
		right(groups, "get list watch", "volumegroupsnapshotclasses"),
		right(groups, "get list watch update patch", "volumegroupsnapshotcontents"),
		right(groups, "update patch", "volumegroupsnapshotcontents/status"),
		right("coordination.k8s.io", "get watch list delete update create", "leases"),
	}
	w := world.New(t, csitest.Options{})
	api := w.Snapshots(t)
	elected := []string{"--leader-election", "--leader-election-namespace=" + w.Namespace}
	roles := []*world.Process{
		w.SnapshotController(t, append(elected, "--enable-distributed-snapshotting", "--kubeconfig="+as(t, w, "controller", controller))...),
		w.Snapshotter(t, append(elected, "--kubeconfig="+as(t, w, "snapshotter", snapshotter))...),
	}
	secret(t, w, "key")
	w.SnapshotClass(t, api, func(c *snapshotv1.VolumeSnapshotClass) {
		c.Parameters = map[string]string{"csi.storage.k8s.io/snapshotter-secret-name": "key", "csi.storage.k8s.io/snapshotter-secret-namespace": w.Namespace}
	})
	w.GroupClass(t, api, nil)
	node := w.Namespace + "-here"
	makeNode(t, w, node)
	placedOn(t, w, node, "data", labelled("app", "shop"))
	w.Snapshot(t, api, "one", "data", nil)
	w.SnapshotReady(t, api, "one")
	w.Group(t, api, "all", shop, nil)
	w.GroupReady(t, api, "all")
	for _, name := range []string{"snapshot-controller-leader", "external-snapshotter-leader-" + strings.ReplaceAll(w.Name, ".", "-")} {
		if _, err := w.Client.CoordinationV1().Leases(w.Namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("upstream's programs compete for another Lease: %v", err)
		}
	}
	w.DropSnapshot(t, api, "one")
	w.SnapshotGone(t, api, "one")
	w.DropGroup(t, api, "all")
	w.NoGroupsLeft(t, api)
	for _, role := range roles {
		for line := range strings.SplitSeq(role.Log(), "\n") { // The kind of schedules is this project's own.
			if strings.Contains(line, "forbidden") && !strings.Contains(line, "holdfast.io") && !strings.Contains(line, "persistentvolumeclaims") {
				t.Errorf("it was refused: %s", line)
			}
		}
	}
}
