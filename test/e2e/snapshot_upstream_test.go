package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// In these tests one program is ours. The test plays upstream's other program: it sends
// the same writes in the same order, without checking for conflicts. Strings are
// literals, because they are the contract between the two.
const (
	contentFinalizer = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
	beingCreated     = "snapshot.storage.kubernetes.io/volumesnapshot-being-created"
	beingDeleted     = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"

	groupContentFinalizer = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"
	groupBeingCreated     = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created"
	groupBeingDeleted     = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted"
	memberAnnotation      = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"
)

// A patchOp is one operation of a JSON patch.
type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch writes an object as upstream's programs do: without checking for conflicts.
func patch(t *testing.T, api client.Client, o client.Object, ops ...patchOp) {
	t.Helper()
	must(t, api.Patch(t.Context(), o, jsonPatch(t, ops)))
}

// patchStatus writes an object's status in the same way.
func patchStatus(t *testing.T, api client.Client, o client.Object, ops ...patchOp) {
	t.Helper()
	must(t, api.Status().Patch(t.Context(), o, jsonPatch(t, ops)))
}

func jsonPatch(t *testing.T, ops []patchOp) client.Patch {
	t.Helper()
	text, err := json.Marshal(ops)
	must(t, err)
	return client.RawPatch(types.JSONPatchType, text)
}

// An upstreamController plays upstream's snapshot-controller.
type upstreamController struct {
	*world.World
	api client.Client
}

// createContent creates a content, and adds the finalizer in a second write.
func (c *upstreamController) createContent(t *testing.T, name string, change func(*snapshotv1.VolumeSnapshotContent)) *snapshotv1.VolumeSnapshotContent {
	t.Helper()
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: c.Namespace + "-" + name},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef:       corev1.ObjectReference{APIVersion: "snapshot.storage.k8s.io/v1", Kind: "VolumeSnapshot", Namespace: c.Namespace, Name: name, UID: types.UID("uid-of-" + name)},
			VolumeSnapshotClassName: &c.Namespace, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: c.Name,
		},
	}
	change(content)
	must(t, c.api.Create(t.Context(), content))
	c.addFinalizer(t, content, contentFinalizer)
	return content
}

// addFinalizer adds a finalizer to an object.
func (c *upstreamController) addFinalizer(t *testing.T, o client.Object, finalizer string) {
	t.Helper()
	one := patchOp{"add", "/metadata/finalizers/-", finalizer}
	if must(t, c.api.Get(t.Context(), client.ObjectKeyFromObject(o), o)); len(o.GetFinalizers()) == 0 {
		one = patchOp{"add", "/metadata/finalizers", []string{finalizer}}
	}
	patch(t, c.api, o, one)
}

// allowDeletion sets a being-deleted annotation on a content and deletes it. It
// replaces all annotations by those from before the csi-snapshotter started.
func (c *upstreamController) allowDeletion(t *testing.T, o client.Object, word string) {
	t.Helper()
	patch(t, c.api, o, patchOp{"add", "/metadata/annotations", map[string]string{word: "yes"}})
	must(t, c.api.Delete(t.Context(), o))
}

// waitGone waits until an object is gone, and the driver has neither snapshots nor
// groups.
func (c *upstreamController) waitGone(t *testing.T, o client.Object) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		if err := c.api.Get(ctx, client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			return errors.Join(err, fmt.Errorf("%s exists with the finalizers %v", o.GetName(), o.GetFinalizers()))
		}
		if left := c.Driver.Snapshots(); len(left)+len(c.Driver.Groups()) > 0 {
			return fmt.Errorf("the driver has %+v", left)
		}
		return nil
	})
}

// waitContent waits until a content passes check.
func (c *upstreamController) waitContent(t *testing.T, content *snapshotv1.VolumeSnapshotContent, check func(*snapshotv1.VolumeSnapshotContent) bool) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		*content = snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: content.Name}}
		if err := c.api.Get(ctx, client.ObjectKeyFromObject(content), content); err != nil || check(content) {
			return err
		}
		text, err := json.Marshal(content)
		return errors.Join(err, fmt.Errorf("the content is %s", text))
	})
}

func contentReady(c *snapshotv1.VolumeSnapshotContent) bool {
	_, marked := c.Annotations[beingCreated]
	return c.Status != nil && ptr.Deref(c.Status.ReadyToUse, false) && !marked
}

// csi-snapshotter works with upstream's snapshot-controller.
func TestWithUpstreamsSnapshotController(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	c := &upstreamController{w, w.SnapshotClient(t)}
	w.StartSnapshotter(t, instantRetries...)
	w.CreateSnapshotClass(t, c.api, nil)
	handle := w.CreatePV(t, "data", nil).Spec.CSI.VolumeHandle
	of := func(content *snapshotv1.VolumeSnapshotContent) { content.Spec.Source.VolumeHandle = &handle }

	t.Run("taken and deleted", func(t *testing.T) {
		content := c.createContent(t, "one", of)
		c.waitContent(t, content, contentReady)
		there := w.Driver.Snapshots()
		if len(there) != 1 || there[0].Name != "snapshot-uid-of-one" || there[0].ID != ptr.Deref(content.Status.SnapshotHandle, "") ||
			ptr.Deref(content.Status.RestoreSize, 0) != 1<<30 || ptr.Deref(content.Status.CreationTime, 0) == 0 {
			t.Fatalf("the driver has %+v, and the content says %+v", there, content.Status)
		}
		c.allowDeletion(t, content, beingDeleted)
		c.waitGone(t, content)
	})
	t.Run("retained, and deleted by hand", func(t *testing.T) {
		content := c.createContent(t, "kept", func(content *snapshotv1.VolumeSnapshotContent) {
			of(content)
			content.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
		})
		c.waitContent(t, content, contentReady)
		kept := *content.Status.SnapshotHandle
		c.allowDeletion(t, content, beingDeleted)
		world.Eventually(t, func(ctx context.Context) error {
			if err := c.api.Get(ctx, client.ObjectKeyFromObject(content), content); !apierrors.IsNotFound(err) {
				return errors.Join(err, errors.New("the content still exists"))
			}
			return nil
		})
		if left := w.Driver.Snapshots(); len(left) != 1 || left[0].ID != kept {
			t.Fatalf("the driver has %+v", left)
		}
		c.importAndDelete(t, kept)
	})
	t.Run("deleted during the call, with the being-created annotation overwritten", func(t *testing.T) {
		call := w.Driver.Block(csi.CreateSnapshot)
		content := c.createContent(t, "during", of)
		<-call.Arrived()
		c.allowDeletion(t, content, beingDeleted)
		call.Release()
		c.waitGone(t, content)
	})
	t.Run("deleted during a call without a response, with the being-created annotation overwritten", func(t *testing.T) {
		arrived, released := make(chan struct{}), make(chan struct{})
		lost := w.Driver.Calls(csi.CreateSnapshot) + 1
		first := func(method csi.Method) bool { return method == csi.CreateSnapshot && w.Driver.Calls(method) == lost }
		w.Driver.SetHooks(csitest.Hooks{
			Before: func(_ context.Context, method csi.Method, _ any) error {
				if first(method) {
					close(arrived)
					<-released
				}
				return nil
			},
			After: func(_ context.Context, method csi.Method, _, resp any, err error) (any, error) {
				if first(method) {
					return nil, status.Error(codes.DeadlineExceeded, "the response was lost")
				}
				return resp, err
			},
		})
		defer w.Driver.SetHooks(csitest.Hooks{})
		content := c.createContent(t, "lost", of)
		<-arrived
		c.allowDeletion(t, content, beingDeleted)
		close(released)
		c.waitGone(t, content)
	})
	t.Run("a group", func(t *testing.T) { c.testGroup(t, handle, w.CreatePV(t, "log", nil).Spec.CSI.VolumeHandle) })
}

// importAndDelete imports a snapshot that exists at the driver, and deletes it. The
// secret for that is only in the annotations, which an administrator has written.
func (c *upstreamController) importAndDelete(t *testing.T, handle string) {
	t.Helper()
	createSecret(t, c.World, "key")
	content := c.createContent(t, "given", func(content *snapshotv1.VolumeSnapshotContent) {
		content.Spec.Source.SnapshotHandle, content.Spec.VolumeSnapshotClassName = &handle, nil
		content.Spec.VolumeSnapshotRef = corev1.ObjectReference{Namespace: c.Namespace, Name: "given"}
	})
	patch(t, c.api, content, patchOp{"add", "/spec/volumeSnapshotRef/uid", "uid-of-given"})
	c.waitContent(t, content, contentReady)
	if got := ptr.Deref(content.Status.SnapshotHandle, ""); got != handle {
		t.Errorf("the content has handle %q, want %s", got, handle)
	}
	patch(t, c.api, content, patchOp{"add", "/metadata/annotations", map[string]string{
		beingDeleted: "yes",
		"snapshot.storage.kubernetes.io/deletion-secret-name": "key", "snapshot.storage.kubernetes.io/deletion-secret-namespace": c.Namespace,
	}})
	must(t, c.api.Delete(t.Context(), content))
	c.waitGone(t, content)
	var last *csipb.DeleteSnapshotRequest
	for _, call := range c.Driver.Log() {
		if request, ok := call.Request.(*csipb.DeleteSnapshotRequest); ok {
			last = request
		}
	}
	if last.GetSnapshotId() != handle || last.GetSecrets()["key"] != "key" {
		t.Errorf("the last DeleteSnapshot request is %v", last)
	}
}

// testGroup creates a group and, when it is taken, its members: for each it creates
// the content, then binds it, then writes its status.
func (c *upstreamController) testGroup(t *testing.T, volumes ...string) {
	c.CreateGroupClass(t, c.api, nil)
	group := &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: c.Namespace + "-group"},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			VolumeGroupSnapshotRef:       corev1.ObjectReference{Namespace: c.Namespace, Name: "group", UID: "uid-of-group"},
			VolumeGroupSnapshotClassName: &c.Namespace, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: c.Name,
			Source: groupv1.VolumeGroupSnapshotContentSource{VolumeHandles: volumes},
		},
	}
	must(t, c.api.Create(t.Context(), group))
	c.addFinalizer(t, group, groupContentFinalizer)
	world.Eventually(t, func(ctx context.Context) error {
		err := c.api.Get(ctx, client.ObjectKeyFromObject(group), group)
		if err == nil && (group.Status == nil || !ptr.Deref(group.Status.ReadyToUse, false)) {
			err = fmt.Errorf("the status is %+v", group.Status)
		}
		return err
	})
	single := []int{c.Driver.Calls(csi.CreateSnapshot), c.Driver.Calls(csi.DeleteSnapshot)}
	if there := c.Driver.Groups(); len(there) != 1 || there[0].Name != "groupsnapshot-uid-of-group" || len(group.Status.VolumeSnapshotInfoList) != 2 {
		t.Fatalf("the driver has %+v, and the content says %+v", there, group.Status)
	}
	var members []*snapshotv1.VolumeSnapshotContent
	for i, info := range group.Status.VolumeSnapshotInfoList {
		member := c.createContent(t, fmt.Sprintf("member-%d", i), func(content *snapshotv1.VolumeSnapshotContent) {
			content.Annotations = map[string]string{memberAnnotation: *group.Status.VolumeGroupSnapshotHandle}
			content.Spec.Source.VolumeHandle, content.Spec.VolumeSnapshotClassName = &info.VolumeHandle, nil
			content.Spec.VolumeSnapshotRef.UID = ""
		})
		patch(t, c.api, member, patchOp{"add", "/spec/volumeSnapshotRef/uid", fmt.Sprintf("uid-of-member-%d", i)})
		patchStatus(t, c.api, member, patchOp{"add", "/status", map[string]any{
			"snapshotHandle": info.SnapshotHandle, "volumeGroupSnapshotHandle": group.Status.VolumeGroupSnapshotHandle,
			"creationTime": info.CreationTime, "restoreSize": info.RestoreSize, "readyToUse": info.ReadyToUse,
		}})
		c.waitContent(t, member, contentReady)
		members = append(members, member)
	}
	c.allowDeletion(t, group, groupBeingDeleted)
	for _, member := range members {
		patch(t, c.api, member, patchOp{"add", "/metadata/annotations", map[string]string{beingDeleted: "yes", memberAnnotation: *group.Status.VolumeGroupSnapshotHandle}})
		must(t, c.api.Delete(t.Context(), member))
	}
	for _, member := range members {
		c.waitGone(t, member)
	}
	c.waitGone(t, group)
	if got := []int{c.Driver.Calls(csi.CreateSnapshot), c.Driver.Calls(csi.DeleteSnapshot)}; !slices.Equal(got, single) {
		t.Errorf("members were taken or deleted individually: %v calls, and %v before", got, single)
	}
}

// An upstreamSnapshotter plays upstream's csi-snapshotter.
type upstreamSnapshotter struct {
	*world.World
	api client.Client
}

// setBeingCreated sets the being-created annotation. It writes all annotations as they
// were observed.
func (o *upstreamSnapshotter) setBeingCreated(t *testing.T, content *snapshotv1.VolumeSnapshotContent, seen map[string]string) {
	t.Helper()
	all := map[string]string{beingCreated: "yes"}
	for key, value := range seen {
		all[key] = value
	}
	patch(t, o.api, content, patchOp{"add", "/metadata/annotations", all})
}

// takeSnapshot calls the driver, writes the status, and removes the being-created
// annotation.
func (o *upstreamSnapshotter) takeSnapshot(t *testing.T, content *snapshotv1.VolumeSnapshotContent, ready bool) string {
	t.Helper()
	handle := o.CreateSnapshotAtDriver(t, "snapshot-"+string(content.Spec.VolumeSnapshotRef.UID), *content.Spec.Source.VolumeHandle)
	patchStatus(t, o.api, content, patchOp{"add", "/status", map[string]any{
		"snapshotHandle": handle, "readyToUse": ready, "creationTime": int64(1_700_000_000_000_000_000), "restoreSize": int64(1 << 30),
	}})
	patch(t, o.api, content, patchOp{"remove", "/metadata/annotations/snapshot.storage.kubernetes.io~1volumesnapshot-being-created", nil})
	return handle
}

// waitDeletionAllowed waits until a content is deleted and has the being-deleted
// annotation.
func (o *upstreamSnapshotter) waitDeletionAllowed(t *testing.T, content *snapshotv1.VolumeSnapshotContent) {
	t.Helper()
	(&upstreamController{o.World, o.api}).waitContent(t, content, func(c *snapshotv1.VolumeSnapshotContent) bool {
		return c.DeletionTimestamp != nil && c.Annotations[beingDeleted] == "yes" && slices.Contains(c.Finalizers, contentFinalizer)
	})
}

// deleteSnapshot deletes the snapshot at the driver, clears the status, and removes
// the content's finalizers.
func (o *upstreamSnapshotter) deleteSnapshot(t *testing.T, content *snapshotv1.VolumeSnapshotContent) {
	t.Helper()
	must(t, o.ConnectDriver(t).WithPrecondition(csi.Unconditional).DeleteSnapshot(t.Context(), &csipb.DeleteSnapshotRequest{SnapshotId: *content.Status.SnapshotHandle}))
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{}
	must(t, o.api.Status().Update(t.Context(), content))
	patch(t, o.api, content, patchOp{"replace", "/metadata/finalizers", []string{}})
}

// snapshot-controller works with upstream's csi-snapshotter.
func TestWithUpstreamsCSISnapshotter(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	o := &upstreamSnapshotter{w, w.SnapshotClient(t)}
	w.StartSnapshotController(t, noRetries...) // A conflict must be no failure, which would be retried after an hour.
	w.StartProvisioner(t)
	w.CreateClass(t, nil)
	w.CreateSnapshotClass(t, o.api, nil)
	w.CreateClaim(t, "data", nil)
	w.WaitBound(t, "data")

	t.Run("taken, followed and deleted", func(t *testing.T) {
		content := w.WaitContent(t, o.api, w.CreateSnapshot(t, o.api, "one", "data", nil))
		o.setBeingCreated(t, content, nil)
		handle := o.takeSnapshot(t, content, false)
		w.WaitSnapshot(t, o.api, "one", func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return s.CreationTime != nil && s.CreationTime.Unix() == 1_700_000_000 && !*s.ReadyToUse && s.RestoreSize.Value() == 1<<30
		})
		patchStatus(t, o.api, content, patchOp{"add", "/status/error", map[string]any{"message": "still uploading", "time": metav1.Now()}})
		w.WaitSnapshotError(t, o.api, "one", "still uploading")
		patchStatus(t, o.api, content, patchOp{"replace", "/status/readyToUse", true}, patchOp{"remove", "/status/error", nil})
		if s := w.WaitSnapshotReady(t, o.api, "one"); s.Status.Error != nil {
			t.Errorf("a ready snapshot has the error %+v", s.Status.Error)
		}
		w.DeleteSnapshot(t, o.api, "one")
		o.waitDeletionAllowed(t, content)
		if got := ptr.Deref(content.Status.SnapshotHandle, ""); got != handle {
			t.Errorf("the content has handle %q, want %s", got, handle)
		}
		o.deleteSnapshot(t, content)
		w.WaitSnapshotGone(t, o.api, "one")
		w.WaitNoSnapshotsLeft(t, o.api)
	})
	t.Run("the being-deleted annotation is overwritten and set again", func(t *testing.T) {
		content := w.WaitContent(t, o.api, w.CreateSnapshot(t, o.api, "brief", "data", nil))
		seen := content.Annotations
		w.DeleteSnapshot(t, o.api, "brief")
		o.waitDeletionAllowed(t, content)
		o.setBeingCreated(t, content, seen)
		o.takeSnapshot(t, content, true)
		o.waitDeletionAllowed(t, content)
		o.deleteSnapshot(t, content)
		w.WaitSnapshotGone(t, o.api, "brief")
		w.WaitNoSnapshotsLeft(t, o.api)
	})
	t.Run("retained", func(t *testing.T) {
		class := w.CreateSnapshotClass(t, o.api, func(c *snapshotv1.VolumeSnapshotClass) {
			c.Name, c.DeletionPolicy = w.Namespace+"-keep", snapshotv1.VolumeSnapshotContentRetain
		})
		content := w.WaitContent(t, o.api, w.CreateSnapshot(t, o.api, "kept", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class.Name }))
		o.setBeingCreated(t, content, nil)
		handle := o.takeSnapshot(t, content, true)
		w.WaitSnapshotReady(t, o.api, "kept")
		w.DeleteSnapshot(t, o.api, "kept")
		w.WaitSnapshotGone(t, o.api, "kept")
		must(t, o.api.Get(t.Context(), client.ObjectKeyFromObject(content), content))
		if content.DeletionTimestamp != nil || content.Annotations[beingDeleted] != "yes" || *content.Status.SnapshotHandle != handle {
			t.Errorf("the content is %+v, %+v", content.ObjectMeta, content.Status)
		}
		must(t, o.api.Delete(t.Context(), content))
		o.waitDeletionAllowed(t, content)
		o.deleteSnapshot(t, content)
		w.WaitNoSnapshotsLeft(t, o.api)
	})
	t.Run("an imported snapshot", func(t *testing.T) { o.testImport(t) })
	t.Run("a group", func(t *testing.T) { o.testGroup(t) })
}

// testImport imports a snapshot. The csi-snapshotter writes its status when the
// content has the UID of its VolumeSnapshot.
func (o *upstreamSnapshotter) testImport(t *testing.T) {
	t.Helper()
	handle := o.CreateSnapshotAtDriver(t, "before", o.WaitBound(t, "data").Spec.CSI.VolumeHandle)
	createContent(t, o.World, o.api, "given", preProvisioned(handle, snapshotv1.VolumeSnapshotContentDelete))
	s := o.CreateSnapshot(t, o.api, "given", "", fromContent(o.Namespace+"-given"))
	content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: o.Namespace + "-given"}}
	(&upstreamController{o.World, o.api}).waitContent(t, content, func(c *snapshotv1.VolumeSnapshotContent) bool {
		return c.Spec.VolumeSnapshotRef.UID == s.UID && slices.Contains(c.Finalizers, contentFinalizer)
	})
	patchStatus(t, o.api, content, patchOp{"add", "/status", map[string]any{"snapshotHandle": handle, "readyToUse": true, "creationTime": int64(1_700_000_000_000_000_000)}})
	o.WaitSnapshotReady(t, o.api, "given")
	o.DeleteSnapshot(t, o.api, "given")
	o.waitDeletionAllowed(t, content)
	o.deleteSnapshot(t, content)
	o.WaitSnapshotGone(t, o.api, "given")
	o.WaitNoSnapshotsLeft(t, o.api)
}

// testGroup takes a group, and in the end deletes it and removes the finalizers of its
// members' contents.
func (o *upstreamSnapshotter) testGroup(t *testing.T) {
	t.Helper()
	o.CreateGroupClass(t, o.api, nil)
	o.CreateClaim(t, "log", withLabels("app", "shop"))
	o.WaitBound(t, "log")
	group := o.CreateGroup(t, o.api, "all", shop, nil)
	content := &groupv1.VolumeGroupSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: "groupsnapcontent-" + string(group.UID)}}
	world.Eventually(t, func(ctx context.Context) error { return o.api.Get(ctx, client.ObjectKeyFromObject(content), content) })
	patch(t, o.api, content, patchOp{"add", "/metadata/annotations", map[string]string{groupBeingCreated: "yes"}})
	made, err := o.ConnectDriver(t).CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{
		Name: "groupsnapshot-" + string(group.UID), SourceVolumeIds: content.Spec.Source.VolumeHandles,
	})
	must(t, err)
	var members []map[string]any
	var ids []string
	for _, s := range made.GetSnapshots() {
		ids = append(ids, s.GetSnapshotId())
		members = append(members, map[string]any{
			"volumeHandle": s.GetSourceVolumeId(), "snapshotHandle": s.GetSnapshotId(), "creationTime": s.GetCreationTime().AsTime().UnixNano(),
			"readyToUse": true, "restoreSize": s.GetSizeBytes(),
		})
	}
	patchStatus(t, o.api, content, patchOp{"add", "/status", map[string]any{
		"volumeGroupSnapshotHandle": made.GetGroupSnapshotId(), "readyToUse": true, "creationTime": metav1.Now(), "volumeSnapshotInfoList": members,
	}})
	patch(t, o.api, content, patchOp{"remove", "/metadata/annotations/groupsnapshot.storage.kubernetes.io~1volumegroupsnapshot-being-created", nil})
	parts := o.ListMembers(t, o.api, o.WaitGroupReady(t, o.api, "all"))
	if len(parts) != 1 || len(ids) != 1 {
		t.Fatalf("there are the members %+v, and the driver has %v", parts, ids)
	}

	o.DeleteGroup(t, o.api, "all")
	world.Eventually(t, func(ctx context.Context) error {
		err := o.api.Get(ctx, client.ObjectKeyFromObject(content), content)
		if err == nil && (content.DeletionTimestamp == nil || content.Annotations[groupBeingDeleted] != "yes") {
			err = fmt.Errorf("the content is %+v", content.ObjectMeta)
		}
		return err
	})
	must(t, o.ConnectDriver(t).WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(t.Context(), &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: made.GetGroupSnapshotId(), SnapshotIds: ids}))
	patchStatus(t, o.api, content, patchOp{"remove", "/status/volumeGroupSnapshotHandle", nil}, patchOp{"remove", "/status/readyToUse", nil}, patchOp{"remove", "/status/creationTime", nil})
	patch(t, o.api, content, patchOp{"replace", "/metadata/finalizers", []string{}})
	for _, part := range parts {
		member := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: *part.Status.BoundVolumeSnapshotContentName}}
		o.waitDeletionAllowed(t, member)
		patch(t, o.api, member, patchOp{"replace", "/metadata/finalizers", []string{}})
	}
	o.WaitNoGroupsLeft(t, o.api)
}
