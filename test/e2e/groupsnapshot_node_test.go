package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// newTwoNodeGroupWorld is a world with two nodes. Each has a driver of its own, a
// csi-snapshotter, and two bound claims of an app, NODE-data and NODE-log, with the
// node's name as a label.
func newTwoNodeGroupWorld(t *testing.T) (w *world.World, api client.Client, here, there *world.Node) {
	t.Helper()
	w = world.New(t, csitest.Options{})
	api = w.SnapshotClient(t)
	w.StartSnapshotController(t, "--enable-distributed-snapshotting")
	w.CreateSnapshotClass(t, api, nil)
	w.CreateGroupClass(t, api, nil)
	var nodes []*world.Node
	for i, name := range []string{"here", "there"} {
		n := w.AddNode(t, w.Namespace+"-"+name, csitest.Options{})
		w.CreateNode(t, n.NodeName, placeLabel(n.NodeName))
		for v := range 10 * i {
			n.CreateVolumeAtDriver(t, fmt.Sprintf("other-%d", v)) // So that no two volumes have one handle.
		}
		for _, part := range []string{"data", "log"} {
			createBoundClaimOn(t, n.World, n.NodeName, name+"-"+part, withLabels("app", "shop", "node", name))
		}
		n.StartSnapshotterOnNode(t, n.NodeName)
		nodes = append(nodes, n)
	}
	return w, api, nodes[0], nodes[1]
}

// The csi-snapshotter of the node that has all volumes of a group takes and deletes
// it, and likewise single snapshots. The other node's driver does not have these
// volumes and gets no calls.
func TestGroupsAreTakenOnTheirNode(t *testing.T) {
	t.Parallel()
	w, api, here, there := newTwoNodeGroupWorld(t)
	on := func(node string) metav1.LabelSelector {
		return metav1.LabelSelector{MatchLabels: map[string]string{"node": node}}
	}
	for name, n := range map[string]*world.Node{"here": here, "there": there} {
		w.CreateGroup(t, api, name, on(name), nil)
		w.CreateSnapshot(t, api, "single-"+name, name+"-data", nil)
		group := w.WaitGroupReady(t, api, name)
		members := w.ListMembers(t, api, group)
		if made := n.Driver.Groups(); len(made) != 1 || made[0].Name != "groupsnapshot-"+string(group.UID) || len(members) != 2 {
			t.Fatalf("the driver of node %s has %+v, and the group has %d members", name, made, len(members))
		}
		content := &groupv1.VolumeGroupSnapshotContent{}
		must(t, api.Get(t.Context(), client.ObjectKey{Name: *group.Status.BoundVolumeGroupSnapshotContentName}, content))
		labels := []string{content.Labels[managedBy]}
		for _, claim := range []string{name + "-data", name + "-log"} {
			of := &snapshotv1.VolumeSnapshotContent{}
			member := members[claim]
			must(t, api.Get(t.Context(), client.ObjectKey{Name: ptr.Deref(member.Status.BoundVolumeSnapshotContentName, "")}, of))
			labels = append(labels, of.Labels[managedBy])
		}
		labels = append(labels, w.WaitContent(t, api, w.WaitSnapshotReady(t, api, "single-"+name)).Labels[managedBy])
		for _, label := range labels {
			if label != n.NodeName {
				t.Errorf("the contents of node %s are labelled %q", n.NodeName, labels)
			}
		}
		if single := n.Driver.Calls(csi.CreateSnapshot); single != 1 {
			t.Errorf("the driver of node %s was called for %d single snapshots", name, single)
		}
	}

	w.DeleteGroup(t, api, "here")
	w.DeleteSnapshot(t, api, "single-here")
	world.Eventually(t, func(context.Context) error {
		if left := here.Driver.Snapshots(); len(left)+len(here.Driver.Groups()) > 0 {
			return fmt.Errorf("the driver has %+v", left)
		}
		return nil
	})
	if n := there.Driver.Calls(csi.DeleteVolumeGroupSnapshot) + there.Driver.Calls(csi.DeleteSnapshot); n > 0 || len(there.Driver.Snapshots()) != 3 {
		t.Errorf("the other node's driver was called %d times to delete something, and has %+v", n, there.Driver.Snapshots())
	}
	w.DeleteGroup(t, api, "there")
	w.DeleteSnapshot(t, api, "single-there")
	here.WaitNoGroupsLeft(t, api)
	there.WaitNoGroupsLeft(t, api)
}

const managedBy = "snapshot.storage.kubernetes.io/managed-by"

// No driver has volumes of two nodes, so nobody can take them at the same moment. The
// status says so, nothing is taken, and when the selector matches claims of one node
// only, the group is taken.
func TestGroupOnDifferentNodesIsRejected(t *testing.T) {
	t.Parallel()
	w, api, here, there := newTwoNodeGroupWorld(t)
	w.CreateGroup(t, api, "both", shop, nil)
	const why = "no node can use all of the volumes"
	w.WaitGroup(t, api, "both", func(s *groupv1.VolumeGroupSnapshotStatus) error {
		if s.Error == nil || !strings.Contains(ptr.Deref(s.Error.Message, ""), why) || ptr.Deref(s.ReadyToUse, true) {
			return fmt.Errorf("the status is %+v", s)
		}
		return nil
	})
	w.WaitEvent(t, "VolumeGroupSnapshot/both", corev1.EventTypeWarning, "CreateGroupSnapshotContentFailed", why)
	contents, err := w.ListGroupContents(t.Context(), api)
	must(t, err)
	if n := here.Driver.Calls(csi.CreateVolumeGroupSnapshot) + there.Driver.Calls(csi.CreateVolumeGroupSnapshot); n > 0 || len(contents) > 0 {
		t.Errorf("the drivers were called %d times, and there are the contents %+v", n, contents)
	}

	claims := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace)
	for _, name := range []string{"there-data", "there-log"} {
		_, err := claims.Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"app":null}}}`), metav1.PatchOptions{})
		must(t, err)
	}
	group := w.WaitGroupReady(t, api, "both")
	if len(w.ListMembers(t, api, group)) != 2 || len(here.Driver.Groups()) != 1 || group.Status.Error != nil {
		t.Errorf("the status is %+v, and the node's driver has %+v", group.Status, here.Driver.Groups())
	}
	w.DeleteGroup(t, api, "both")
	here.WaitNoGroupsLeft(t, api)
}

// A volume without node affinity can be used anywhere. Groups of such volumes are
// taken by a csi-snapshotter for all nodes, such as the one of a network driver in a
// cluster whose other drivers run on each node. In a group with a volume of a node,
// they are taken on that node.
func TestVolumesWithoutNodeAffinityAreTakenTogether(t *testing.T) {
	t.Parallel()
	for name, node := range map[string]string{"all of them": "", "in a group with a volume of a node": "here"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{})
			api := w.SnapshotClient(t)
			w.StartSnapshotController(t, "--enable-distributed-snapshotting")
			w.CreateGroupClass(t, api, nil)
			if node == "" {
				w.StartSnapshotter(t)
			} else {
				node = w.Namespace + "-" + node
				w.CreateNode(t, node, placeLabel(node))
				w.StartSnapshotterOnNode(t, node)
			}
			createBoundClaimOn(t, w, node, "data", withLabels("app", "shop"))
			createBoundClaimOn(t, w, "", "log", withLabels("app", "shop"))
			w.CreateGroup(t, api, "one", shop, nil)
			group := w.WaitGroupReady(t, api, "one")
			contents, err := w.ListGroupContents(t.Context(), api)
			must(t, err)
			if len(contents) != 1 || contents[0].Labels[managedBy] != node || len(w.ListMembers(t, api, group)) != 2 {
				t.Errorf("the content is %+v", contents)
			}
			w.DeleteGroup(t, api, "one")
			w.WaitNoGroupsLeft(t, api)
		})
	}
}

// Only the csi-snapshotter of a node deletes the snapshots there. If the node is gone
// for good, unstarted snapshots are removed; for all others an event says what the
// user must do.
func TestSnapshotsOfDeletedNodeSayHowToRemoveThem(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.StartSnapshotController(t, "--enable-distributed-snapshotting")
	w.CreateSnapshotClass(t, api, nil)
	w.CreateGroupClass(t, api, nil)
	node := w.Namespace + "-gone"
	w.CreateNode(t, node, placeLabel(node))
	createBoundClaimOn(t, w, node, "data", withLabels("app", "shop"))
	snapshotter := w.StartSnapshotterOnNode(t, node)
	w.CreateSnapshot(t, api, "single", "data", nil)
	w.CreateGroup(t, api, "group", shop, nil)
	content := w.WaitContent(t, api, w.WaitSnapshotReady(t, api, "single"))
	group := w.WaitGroupReady(t, api, "group")

	snapshotter.Terminate()
	<-snapshotter.Done()
	w.CreateSnapshot(t, api, "unbegun", "data", nil)
	w.WaitSnapshot(t, api, "unbegun", func(s *snapshotv1.VolumeSnapshotStatus) bool { return s.BoundVolumeSnapshotContentName != nil })
	w.DeleteSnapshot(t, api, "single")
	w.DeleteSnapshot(t, api, "unbegun")
	w.DeleteGroup(t, api, "group")
	must(t, w.Client.CoreV1().Nodes().Delete(t.Context(), node, metav1.DeleteOptions{}))
	w.WaitSnapshotGone(t, api, "unbegun")
	waitClaimProtection(t, w, "data", false)

	end := func(kind, name string) string {
		run := []string{"patch", kind, name, "--type=merge", "-p"}
		const retain = `{"spec":{"deletionPolicy":"Retain"}}`
		localWorld{w}.kubectl(t, append(run, retain)...)
		return strings.Join(append(append([]string{"kubectl"}, run...), "'"+retain+"'"), " ")
	}
	const gone = "there is no such node"
	w.WaitEvent(t, "VolumeSnapshot/single", corev1.EventTypeWarning, "SnapshotDeletePending", gone)
	s := w.WaitSnapshot(t, api, "single", func(s *snapshotv1.VolumeSnapshotStatus) bool {
		return s.Error != nil && strings.Contains(ptr.Deref(s.Error.Message, ""), gone)
	})
	if message, command := ptr.Deref(s.Status.Error.Message, ""), end("volumesnapshotcontent", content.Name); !strings.Contains(message, command) || !strings.Contains(message, node) {
		t.Errorf("the command is %q, and the status says %q", command, message)
	}
	w.WaitSnapshotGone(t, api, "single")
	w.WaitEvent(t, "VolumeGroupSnapshot/group", corev1.EventTypeWarning, "SnapshotDeletePending", gone)
	end("volumegroupsnapshotcontent", *group.Status.BoundVolumeGroupSnapshotContentName)
	world.Eventually(t, func(ctx context.Context) error {
		contents, err := w.ListContents(ctx, api)
		groups, err2 := w.ListGroupContents(ctx, api)
		left := &snapshotv1.VolumeSnapshotList{}
		if err := errors.Join(err, err2, api.List(ctx, left, client.InNamespace(w.Namespace))); err != nil {
			return err
		}
		if len(contents)+len(groups)+len(left.Items) > 0 {
			return fmt.Errorf("left are %d contents, %d of groups and %d VolumeSnapshots", len(contents), len(groups), len(left.Items))
		}
		return nil
	})
	if n := w.Driver.Calls(csi.DeleteSnapshot) + w.Driver.Calls(csi.DeleteVolumeGroupSnapshot); n > 0 {
		t.Errorf("the driver was called %d times to delete something", n)
	}
}
