package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

const groupFinalizer = "snapshot.storage.kubernetes.io/volumesnapshot-in-group-protection"

var shop = metav1.LabelSelector{MatchLabels: map[string]string{"app": "shop"}}

// newGroupWorld is a world with two bound claims of an app, data and log, a class for
// group snapshots, a snapshot-controller and a csi-snapshotter.
func newGroupWorld(t *testing.T, o csitest.Options, controller ...string) (*world.World, client.Client) {
	t.Helper()
	w := world.New(t, o)
	api := w.SnapshotClient(t)
	w.StartProvisioner(t)
	w.StartSnapshotController(t, controller...)
	w.StartSnapshotter(t)
	w.CreateClass(t, nil)
	w.CreateGroupClass(t, api, nil)
	w.CreateClaim(t, "data", withLabels("app", "shop", "part", "data"))
	w.CreateClaim(t, "log", withLabels("app", "shop", "part", "log"))
	w.WaitBound(t, "data")
	w.WaitBound(t, "log")
	return w, api
}

func TestGroupIsTakenRestoredAndDeleted(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateGroup(t, api, "one", shop, nil)
	group := w.WaitGroupReady(t, api, "one")
	if group.Status.CreationTime.Year() < 2000 || group.Status.Error != nil || ptr.Deref(group.Status.BoundVolumeGroupSnapshotContentName, "") != "groupsnapcontent-"+string(group.UID) {
		t.Errorf("the status is %+v", group.Status)
	}
	there := w.Driver.Groups()
	if len(there) != 1 || there[0].Name != "groupsnapshot-"+string(group.UID) || len(there[0].MemberIDs) != 2 {
		t.Fatalf("the driver has %+v", there)
	}
	members := w.ListMembers(t, api, group)
	for _, claim := range []string{"data", "log"} {
		s := members[claim]
		checkMember(t, group, &s, w.WaitBound(t, claim))
		content := &snapshotv1.VolumeSnapshotContent{}
		must(t, api.Get(t.Context(), client.ObjectKey{Name: strings.Replace(s.Name, "snapshot-", "snapcontent-", 1)}, content))
		checkMemberContent(t, there[0], content)
	}
	if single := w.Driver.Calls(csi.CreateSnapshot); single != 0 || len(members) != 2 {
		t.Errorf("there are %d members, and %d snapshots were taken individually", len(members), single)
	}

	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", members["log"].Name))
	w.WaitBound(t, "restored")

	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
	if single := w.Driver.Calls(csi.DeleteSnapshot); single != 0 {
		t.Errorf("%d members were deleted individually", single)
	}
	for _, claim := range []string{"data", "log", "restored"} {
		w.DeleteClaim(t, claim)
	}
	w.WaitNothingLeft(t)
}

// checkMember checks the parts of a member on which other programs and users rely.
func checkMember(t *testing.T, group *groupv1.VolumeGroupSnapshot, s *snapshotv1.VolumeSnapshot, volume *corev1.PersistentVolume) {
	t.Helper()
	hash := sha256.Sum256([]byte(string(group.UID) + volume.Spec.CSI.VolumeHandle))
	if s.Name != fmt.Sprintf("snapshot-%x", hash) || !slices.Contains(s.Finalizers, groupFinalizer) {
		t.Fatalf("the member of volume %s is %s, with the finalizers %v", volume.Name, s.Name, s.Finalizers)
	}
	if s.Status == nil || !ptr.Deref(s.Status.ReadyToUse, false) || ptr.Deref(s.Status.VolumeGroupSnapshotName, "") != group.Name ||
		s.Status.RestoreSize.Value() != 1<<30 || s.Status.CreationTime == nil {
		t.Errorf("the status of member %s is %+v", s.Name, s.Status)
	}
}

func checkMemberContent(t *testing.T, group csitest.Group, content *snapshotv1.VolumeSnapshotContent) {
	t.Helper()
	if content.Annotations["groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"] != group.ID || content.Spec.VolumeSnapshotClassName != nil ||
		ptr.Deref(content.Status.VolumeGroupSnapshotHandle, "") != group.ID || ptr.Deref(content.Spec.SourceVolumeMode, "") != corev1.PersistentVolumeFilesystem {
		t.Errorf("content %s is %+v, %+v, %v", content.Name, content.Spec, content.Status, content.Annotations)
	}
	if !slices.Contains(group.MemberIDs, ptr.Deref(content.Status.SnapshotHandle, "")) {
		t.Errorf("the driver does not have what is in content %s in the group: %+v", content.Name, content.Status)
	}
}

func TestGroupOperationsAreMeasured(t *testing.T) {
	t.Parallel()
	address := world.FreeAddress(t)
	w, api := newGroupWorld(t, csitest.Options{}, "--http-endpoint="+address)
	says := func(line string) {
		t.Helper()
		world.Eventually(t, func(ctx context.Context) error { return checkServed(ctx, "http://"+address+"/metrics", line) })
	}
	measured := func(operation, how string) {
		t.Helper()
		says(fmt.Sprintf("snapshot_controller_operation_total_seconds_count{driver_name=%q,operation_name=%q,operation_status=%q,snapshot_type=\"dynamic\"} 1", w.Name, operation, how))
	}
	slow := w.Driver.Block(csi.CreateVolumeGroupSnapshot)
	w.CreateGroup(t, api, "one", shop, nil)
	<-slow.Arrived()
	says("snapshot_controller_operations_in_flight 2") // Creating, and becoming ready.
	slow.Release()
	w.WaitGroupReady(t, api, "one")
	measured("CreateGroupSnapshot", "success")
	measured("CreateGroupSnapshotAndReady", "success")
	says("snapshot_controller_operations_in_flight 0")
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
	measured("DeleteGroupSnapshot", "success")

	slow = w.Driver.Block(csi.CreateVolumeGroupSnapshot)
	w.CreateGroup(t, api, "given-up", shop, nil)
	<-slow.Arrived()
	w.DeleteGroup(t, api, "given-up")
	world.Eventually(t, func(ctx context.Context) error {
		contents, err := w.ListGroupContents(ctx, api)
		if err == nil && (len(contents) != 1 || contents[0].DeletionTimestamp == nil) {
			err = errors.New("its content is not being deleted")
		}
		return err
	})
	slow.Release()
	w.WaitNoGroupsLeft(t, api)
	measured("CreateGroupSnapshot", "cancel")
	measured("CreateGroupSnapshotAndReady", "cancel")
	says("snapshot_controller_operations_in_flight 0")
}

func TestMemberIsNotDeletedBeforeItsGroup(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateGroup(t, api, "one", shop, nil)
	group := w.WaitGroupReady(t, api, "one")
	name := w.ListMembers(t, api, group)["data"].Name
	w.DeleteSnapshot(t, api, name)
	w.WaitEvent(t, "VolumeSnapshot/"+name, "", "SnapshotDeletePending", "the snapshot is part of VolumeGroupSnapshot one")
	if s := w.WaitSnapshotReady(t, api, name); s.DeletionTimestamp == nil || w.Driver.Calls(csi.DeleteSnapshot) != 0 {
		t.Errorf("the member is %+v, and the driver was called %d times to delete one", s, w.Driver.Calls(csi.DeleteSnapshot))
	}
	w.WaitGroupReady(t, api, "one")
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api) // Also the member, which had been waiting.
}

// An unfinished restore of a member blocks the deletion of the group, and an event
// says so.
func TestGroupDeletionWaitsForRestoresOfMembers(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateGroup(t, api, "one", shop, nil)
	group := w.WaitGroupReady(t, api, "one")
	slow := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", w.ListMembers(t, api, group)["data"].Name))
	<-slow.Arrived()
	w.DeleteGroup(t, api, "one")
	w.WaitEvent(t, "VolumeGroupSnapshot/one", "", "SnapshotDeletePending", w.Namespace+"/restored waits for a volume")
	if n := w.Driver.Calls(csi.DeleteVolumeGroupSnapshot); n != 0 || len(w.Driver.Groups()) != 1 {
		t.Errorf("DeleteVolumeGroupSnapshot was called %d times", n)
	}
	slow.Release()
	w.WaitBound(t, "restored")
	w.WaitNoGroupsLeft(t, api)
}

// A provisioner completes a restore whose claim was deleted meanwhile.
func TestGroupDeletionWaitsForRestoreOfDeletedClaim(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateGroup(t, api, "one", shop, nil)
	group := w.WaitGroupReady(t, api, "one")
	slow := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", w.ListMembers(t, api, group)["data"].Name))
	<-slow.Arrived()
	w.DeleteClaim(t, "restored")
	w.WaitClaimGone(t, "restored")
	w.DeleteGroup(t, api, "one")
	w.WaitEvent(t, "VolumeGroupSnapshot/one", "", "SnapshotDeletePending", "a provisioner restores")
	if n := w.Driver.Calls(csi.DeleteVolumeGroupSnapshot); n != 0 || len(w.Driver.Groups()) != 1 {
		t.Errorf("DeleteVolumeGroupSnapshot was called %d times", n)
	}
	slow.Release()
	w.WaitNoGroupsLeft(t, api)
}

// A claim that leaves the group before its volume is known is not protected any more.
func TestClaimRemovedFromGroupIsUnprotected(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	call := w.Driver.Block(csi.CreateVolumeGroupSnapshot)
	w.CreateGroup(t, api, "one", shop, nil)
	<-call.Arrived()
	claims := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace)
	// As left by a process that protected the claim and did not create the content.
	w.CreateClaim(t, "left", func(c *corev1.PersistentVolumeClaim) {
		withUnknownClass(c)
		withLabels("app", "shop")(c)
		c.Finalizers = []string{snapshot.ClaimFinalizer}
	})
	_, err := claims.Patch(t.Context(), "left", types.MergePatchType, []byte(`{"metadata":{"labels":{"app":null}}}`), metav1.PatchOptions{})
	must(t, err)
	waitClaimProtection(t, w, "left", false)
	waitClaimProtection(t, w, "data", true)
	call.Release()
	w.WaitGroupReady(t, api, "one")
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
}

// The whole selector counts, including matchExpressions.
func TestGroupUsesItsWholeSelector(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateClaim(t, "cache", withLabels("app", "shop", "part", "cache"))
	w.WaitBound(t, "cache")
	selector := shop
	selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "part", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"cache"}}}
	w.CreateGroup(t, api, "one", selector, nil)
	members := w.ListMembers(t, api, w.WaitGroupReady(t, api, "one"))
	if names := slices.Sorted(maps.Keys(members)); !slices.Equal(names, []string{"data", "log"}) {
		t.Errorf("the members are of %v", names)
	}
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
}

// A claim without a volume is named in the status, nothing is taken without it, and
// the group is taken when the claim is bound.
func TestUnboundClaimBlocksGroup(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateGroupClass(t, api, func(c *groupv1.VolumeGroupSnapshotClass) {
		c.Name += "-default"
		c.Annotations = map[string]string{"groupsnapshot.storage.kubernetes.io/is-default-class": "true"}
	})
	w.CreateClaim(t, "late", func(c *corev1.PersistentVolumeClaim) {
		withLabels("app", "shop")(c)
		c.Spec.StorageClassName = ptr.To(w.Namespace + "-late")
	})
	w.CreateGroup(t, api, "one", shop, func(g *groupv1.VolumeGroupSnapshot) { g.Spec.VolumeGroupSnapshotClassName = nil })
	w.WaitGroup(t, api, "one", func(s *groupv1.VolumeGroupSnapshotStatus) error {
		if s.Error == nil || ptr.Deref(s.Error.Message, "") != "claim late has no volume yet" {
			return fmt.Errorf("the error is %+v", s.Error)
		}
		return nil
	})
	if n := w.Driver.Calls(csi.CreateVolumeGroupSnapshot); n != 0 {
		t.Errorf("the driver was called %d times", n)
	}
	w.CreateClass(t, func(c *storagev1.StorageClass) { c.Name += "-late" })
	group := w.WaitGroupReady(t, api, "one")
	if members := w.ListMembers(t, api, group); len(members) != 3 || group.Status.Error != nil {
		t.Errorf("there are %d members, and the error is %+v", len(members), group.Status.Error)
	}
	if class := ptr.Deref(group.Spec.VolumeGroupSnapshotClassName, ""); class != w.Namespace+"-default" {
		t.Errorf("the class is %q", class)
	}
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
}

// The driver first fails and then takes its time. The group reports both, and becomes
// ready with its members; no member is ready before it.
func TestSlowGroupIsFollowed(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{
		SnapshotReadyAfter: 6,
		Controller: []csipb.ControllerServiceCapability_RPC_Type{ // Single snapshots cannot be read.
			csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		},
	})
	w.Driver.FailNext(csi.CreateVolumeGroupSnapshot, codes.ResourceExhausted, "no room for a snapshot")
	blocked := w.Driver.Block(csi.GetVolumeGroupSnapshot)
	w.CreateGroup(t, api, "one", shop, nil)
	w.WaitGroup(t, api, "one", func(s *groupv1.VolumeGroupSnapshotStatus) error {
		if s.Error == nil || !strings.Contains(ptr.Deref(s.Error.Message, ""), "no room for a snapshot") {
			return fmt.Errorf("the error is %+v", s.Error)
		}
		return nil
	})
	<-blocked.Arrived()
	group := w.WaitGroup(t, api, "one", func(s *groupv1.VolumeGroupSnapshotStatus) error {
		if s.CreationTime == nil {
			return errors.New("it is not taken")
		}
		return nil
	})
	world.Eventually(t, func(context.Context) error {
		for _, s := range w.ListMembers(t, api, group) {
			if s.Status == nil || s.Status.CreationTime == nil {
				return fmt.Errorf("member %s has the status %+v", s.Name, s.Status)
			}
			if ptr.Deref(s.Status.ReadyToUse, false) {
				t.Errorf("member %s is ready before its group", s.Name)
			}
		}
		return nil
	})
	if ptr.Deref(group.Status.ReadyToUse, false) || len(w.ListMembers(t, api, group)) != 2 {
		t.Errorf("the status is %+v", group.Status)
	}
	blocked.Release()
	for _, s := range w.ListMembers(t, api, w.WaitGroupReady(t, api, "one")) {
		if !ptr.Deref(s.Status.ReadyToUse, false) {
			t.Errorf("the group is ready and member %s is not", s.Name)
		}
	}
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
}

// A claim that is deleted while its group is being taken stays until the snapshot is
// taken, but not until it is uploaded.
func TestClaimsAreProtectedUntilGroupIsTaken(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{SnapshotReadyAfter: 1 << 30})
	volume := w.WaitBound(t, "data")
	call := w.Driver.Block(csi.CreateVolumeGroupSnapshot)
	w.CreateGroup(t, api, "one", shop, nil)
	<-call.Arrived()
	w.DeleteClaim(t, "data")
	for _, name := range []string{"data", "log"} {
		waitClaimProtection(t, w, name, true)
	}
	call.Release()
	w.WaitPVGone(t, volume)
	waitClaimProtection(t, w, "log", false)
	w.Driver.Reconfigure(func(o *csitest.Options) { o.SnapshotReadyAfter = 0 })
	if members := w.ListMembers(t, api, w.WaitGroupReady(t, api, "one")); len(members) != 2 {
		t.Errorf("the group has %d members", len(members))
	}
	w.DeleteGroup(t, api, "one")
	w.WaitNoGroupsLeft(t, api)
}

// A group with policy Retain stays complete, and can be imported as another group.
func TestRetainedGroupIsImported(t *testing.T) {
	t.Parallel()
	w, api := newGroupWorld(t, csitest.Options{})
	w.CreateGroupClass(t, api, func(c *groupv1.VolumeGroupSnapshotClass) {
		c.Name, c.DeletionPolicy = c.Name+"-kept", snapshotv1.VolumeSnapshotContentRetain
	})
	w.CreateGroup(t, api, "one", shop, func(g *groupv1.VolumeGroupSnapshot) {
		g.Spec.VolumeGroupSnapshotClassName = ptr.To(w.Namespace + "-kept")
	})
	group := w.WaitGroupReady(t, api, "one")
	w.DeleteGroup(t, api, "one")
	for _, s := range w.ListMembers(t, api, group) {
		w.WaitSnapshotGone(t, api, s.Name)
	}
	kept := deleteContents(t, w, api)
	if len(w.Driver.Groups()) != 1 || len(kept) != 2 {
		t.Fatalf("the driver has %+v, and %d contents were retained", w.Driver.Groups(), len(kept))
	}

	there := w.Driver.Groups()[0]
	importGroup(t, w, api, there)
	group = w.WaitGroupReady(t, api, "two")
	world.Eventually(t, func(context.Context) error {
		members := w.ListMembers(t, api, group)
		for _, s := range members {
			if s.Status == nil || ptr.Deref(s.Status.VolumeGroupSnapshotName, "") != "two" || !slices.Contains(s.Finalizers, groupFinalizer) {
				return fmt.Errorf("member %s is %v with the status %+v", s.Name, s.Finalizers, s.Status)
			}
		}
		if len(members) != 2 {
			return fmt.Errorf("there are %d members", len(members))
		}
		return nil
	})
	w.DeleteGroup(t, api, "two")
	w.WaitNoGroupsLeft(t, api)
}

// deleteContents deletes the retained contents, and returns those of single snapshots.
// The snapshots stay at the driver.
func deleteContents(t *testing.T, w *world.World, api client.Client) []snapshotv1.VolumeSnapshotContent {
	t.Helper()
	groups, err := w.ListGroupContents(t.Context(), api)
	must(t, err)
	for i := range groups {
		must(t, api.Delete(t.Context(), &groups[i]))
	}
	singles, err := w.ListContents(t.Context(), api)
	must(t, err)
	for i := range singles {
		must(t, api.Delete(t.Context(), &singles[i]))
	}
	world.Eventually(t, func(ctx context.Context) error {
		left, err := w.ListContents(ctx, api)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%d contents are left", len(left))
		}
		return err
	})
	return singles
}

// importGroup creates the objects of a group at the driver, as an administrator does:
// group two with its content, and a VolumeSnapshot with its content for each member.
func importGroup(t *testing.T, w *world.World, api client.Client, there csitest.Group) {
	t.Helper()
	must(t, api.Create(t.Context(), &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-two"},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			Driver: w.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
			VolumeGroupSnapshotRef: corev1.ObjectReference{Namespace: w.Namespace, Name: "two"},
			Source: groupv1.VolumeGroupSnapshotContentSource{GroupSnapshotHandles: &groupv1.GroupSnapshotHandles{
				VolumeGroupSnapshotHandle: there.ID, VolumeSnapshotHandles: there.MemberIDs,
			}},
		},
	}))
	w.CreateGroup(t, api, "two", shop, func(g *groupv1.VolumeGroupSnapshot) {
		g.Spec.Source = groupv1.VolumeGroupSnapshotSource{VolumeGroupSnapshotContentName: ptr.To(w.Namespace + "-two")}
		g.Spec.VolumeGroupSnapshotClassName = nil
	})
	for _, handle := range there.MemberIDs {
		name := w.Namespace + "-" + handle
		must(t, api.Create(t.Context(), &snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver: w.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
				VolumeSnapshotRef: corev1.ObjectReference{Namespace: w.Namespace, Name: handle},
				Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle},
			},
		}))
		w.CreateSnapshot(t, api, handle, "", func(s *snapshotv1.VolumeSnapshot) {
			s.Spec = snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &name}}
		})
	}
}
