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

// policyRule allows verbs on resources of an API group.
func policyRule(group, verbs string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: resources, Verbs: strings.Fields(verbs)}
}

// Users who only replace the images of upstream's two programs grant no new
// permissions, not even for groups and for drivers on each node.
func TestUpstreamsSnapshotPermissionsAreSufficient(t *testing.T) {
	t.Parallel()
	const snapshots, groups = "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io"
	controller := []rbacv1.PolicyRule{
		policyRule("", "get list watch", "persistentvolumes", "nodes"),
		policyRule("", "get list watch update", "persistentvolumeclaims"),
		policyRule("", "list watch create update patch", "events"),
		policyRule(snapshots, "get list watch", "volumesnapshotclasses"),
		policyRule(snapshots, "create get list watch update delete patch", "volumesnapshotcontents"),
		policyRule(snapshots, "patch", "volumesnapshotcontents/status"),
		policyRule(snapshots, "create get list watch update patch delete", "volumesnapshots"),
		policyRule(snapshots, "update patch", "volumesnapshots/status"),
		policyRule(groups, "get list watch", "volumegroupsnapshotclasses"),
		policyRule(groups, "create get list watch update delete patch", "volumegroupsnapshotcontents"),
		policyRule(groups, "patch", "volumegroupsnapshotcontents/status"),
		policyRule(groups, "get list watch update patch", "volumegroupsnapshots"),
		policyRule(groups, "update patch", "volumegroupsnapshots/status"),
		policyRule("coordination.k8s.io", "get watch list delete update create", "leases"),
	}
	snapshotter := []rbacv1.PolicyRule{
		policyRule("", "list watch create update patch", "events"),
		policyRule("", "get list", "secrets"), // Commented out there, for drivers without secrets.
		policyRule(snapshots, "get list watch", "volumesnapshotclasses"),
		policyRule(snapshots, "get list watch update patch", "volumesnapshotcontents"),
		policyRule(snapshots, "update patch", "volumesnapshotcontents/status"),
		policyRule(groups, "get list watch", "volumegroupsnapshotclasses"),
		policyRule(groups, "get list watch update patch", "volumegroupsnapshotcontents"),
		policyRule(groups, "update patch", "volumegroupsnapshotcontents/status"),
		policyRule("coordination.k8s.io", "get watch list delete update create", "leases"),
	}
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	elected := []string{"--leader-election", "--leader-election-namespace=" + w.Namespace}
	roles := []*world.Process{
		w.StartSnapshotController(t, append(elected, "--enable-distributed-snapshotting", "--kubeconfig="+impersonate(t, w, "controller", controller))...),
		w.StartSnapshotter(t, append(elected, "--kubeconfig="+impersonate(t, w, "snapshotter", snapshotter))...),
	}
	createSecret(t, w, "key")
	w.CreateSnapshotClass(t, api, func(c *snapshotv1.VolumeSnapshotClass) {
		c.Parameters = map[string]string{"csi.storage.k8s.io/snapshotter-secret-name": "key", "csi.storage.k8s.io/snapshotter-secret-namespace": w.Namespace}
	})
	w.CreateGroupClass(t, api, nil)
	node := w.Namespace + "-here"
	w.CreateNode(t, node, placeLabel(node))
	createBoundClaimOn(t, w, node, "data", withLabels("app", "shop"))
	w.CreateSnapshot(t, api, "one", "data", nil)
	w.WaitSnapshotReady(t, api, "one")
	w.CreateGroup(t, api, "all", shop, nil)
	w.WaitGroupReady(t, api, "all")
	for _, name := range []string{"snapshot-controller-leader", "external-snapshotter-leader-" + strings.ReplaceAll(w.Name, ".", "-")} {
		if _, err := w.Client.CoordinationV1().Leases(w.Namespace).Get(t.Context(), name, metav1.GetOptions{}); err != nil {
			t.Errorf("upstream's programs use another Lease: %v", err)
		}
	}
	w.DeleteSnapshot(t, api, "one")
	w.WaitSnapshotGone(t, api, "one")
	w.DeleteGroup(t, api, "all")
	w.WaitNoGroupsLeft(t, api)
	for _, role := range roles {
		for line := range strings.SplitSeq(role.Log(), "\n") { // Schedules exist only in this project.
			if strings.Contains(line, "forbidden") && !strings.Contains(line, "holdfast.io") && !strings.Contains(line, "persistentvolumeclaims") {
				t.Errorf("a request was forbidden: %s", line)
			}
		}
	}
}
