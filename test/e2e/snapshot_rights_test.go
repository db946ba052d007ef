package e2e

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// right is what may be done with resources of an API group.
func right(group, verbs string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: strings.Fields(verbs)}
}

// Who replaces the images of upstream's two programs, and nothing else, has
// given them no further rights.
func TestTheRightsOfUpstreamsManifestsAreEnoughForSnapshots(t *testing.T) {
	t.Parallel()
	const snapshots = "snapshot.storage.k8s.io"
	controller := []rbacv1.PolicyRule{
		right("", "get list watch", "persistentvolumes"),
		right("", "get list watch update", "persistentvolumeclaims"),
		right("", "list watch create update patch", "events"),
		right(snapshots, "get list watch", "volumesnapshotclasses"),
		right(snapshots, "create get list watch update delete patch", "volumesnapshotcontents"),
		right(snapshots, "patch", "volumesnapshotcontents/status"),
		right(snapshots, "create get list watch update patch delete", "volumesnapshots"),
		right(snapshots, "update patch", "volumesnapshots/status"),
		right("coordination.k8s.io", "get watch list delete update create", "leases"),
	}
	snapshotter := []rbacv1.PolicyRule{
		right("", "list watch create update patch", "events"),
		right(snapshots, "get list watch", "volumesnapshotclasses"),
		right(snapshots, "get list watch update patch", "volumesnapshotcontents"),
		right(snapshots, "update patch", "volumesnapshotcontents/status"),
		right("coordination.k8s.io", "get watch list delete update create", "leases"),
	}
	w := world.New(t, csitest.Options{})
	api := w.Snapshots(t)
	w.Provisioner(t)
	elected := []string{"--leader-election", "--leader-election-namespace=" + w.Namespace}
	w.SnapshotController(t, append(elected, "--kubeconfig="+as(t, w, "controller", controller))...)
	w.Snapshotter(t, append(elected, "--kubeconfig="+as(t, w, "snapshotter", snapshotter))...)
	w.Class(t, nil)
	w.SnapshotClass(t, api, nil)
	w.Claim(t, "data", nil)
	w.Bound(t, "data")
	w.Snapshot(t, api, "one", "data", nil)
	w.SnapshotReady(t, api, "one")
	w.DropSnapshot(t, api, "one")
	w.SnapshotGone(t, api, "one")
	w.NoSnapshotsLeft(t, api)
}
