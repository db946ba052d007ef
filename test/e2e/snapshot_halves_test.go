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

// In these tests one half is ours, and the other one is played: with the writes of
// upstream's program, in its order and its way, which is less careful. Strings are
// written out, for they are what the two have in common.
const (
	onContent    = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
	beingCreated = "snapshot.storage.kubernetes.io/volumesnapshot-being-created"
	beingDeleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"

	onGroupContent    = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshotcontent-bound-protection"
	groupBeingCreated = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-created"
	groupBeingDeleted = "groupsnapshot.storage.kubernetes.io/volumegroupsnapshot-being-deleted"
	memberOf          = "groupsnapshot.storage.k8s.io/volumeGroupSnapshotHandle"
)

// An op is one of a JSON patch.
type op struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// patch writes an object as upstream's programs do: without looking whether it is
// still what was seen.
func patch(t *testing.T, api client.Client, o client.Object, ops ...op) {
	t.Helper()
	must(t, api.Patch(t.Context(), o, jsonPatch(t, ops)))
}

// patchStatus does so with an object's status.
func patchStatus(t *testing.T, api client.Client, o client.Object, ops ...op) {
	t.Helper()
	must(t, api.Status().Patch(t.Context(), o, jsonPatch(t, ops)))
}

func jsonPatch(t *testing.T, ops []op) client.Patch {
	t.Helper()
	text, err := json.Marshal(ops)
	must(t, err)
	return client.RawPatch(types.JSONPatchType, text)
}

// An otherController plays upstream's snapshot-controller.
type otherController struct {
	*world.World
	api client.Client
}

// content makes a content, and puts the finalizer on it in a second write.
func (c *otherController) content(t *testing.T, name string, change func(*snapshotv1.VolumeSnapshotContent)) *snapshotv1.VolumeSnapshotContent {
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
	c.protect(t, content, onContent)
	return content
}

// protect adds a finalizer to whatever there is.
func (c *otherController) protect(t *testing.T, o client.Object, finalizer string) {
	t.Helper()
	one := op{"add", "/metadata/finalizers/-", finalizer}
	if must(t, c.api.Get(t.Context(), client.ObjectKeyFromObject(o), o)); len(o.GetFinalizers()) == 0 {
		one = op{"add", "/metadata/finalizers", []string{finalizer}}
	}
	patch(t, c.api, o, one)
}

// release gives the word that a content may go, and deletes it. All annotations are
// written, as they were seen before the other half began.
func (c *otherController) release(t *testing.T, o client.Object, word string) {
	t.Helper()
	patch(t, c.api, o, op{"add", "/metadata/annotations", map[string]string{word: "yes"}})
	must(t, c.api.Delete(t.Context(), o))
}

// gone waits until an object is, and the driver has neither snapshots nor groups.
func (c *otherController) gone(t *testing.T, o client.Object) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		if err := c.api.Get(ctx, client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			return errors.Join(err, fmt.Errorf("%s is there, held by %v", o.GetName(), o.GetFinalizers()))
		}
		if left := c.Driver.Snapshots(); len(left)+len(c.Driver.Groups()) > 0 {
			return fmt.Errorf("the driver has %+v", left)
		}
		return nil
	})
}

// is waits until a content is as wanted.
func (c *otherController) is(t *testing.T, content *snapshotv1.VolumeSnapshotContent, wanted func(*snapshotv1.VolumeSnapshotContent) bool) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		*content = snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: content.Name}}
		if err := c.api.Get(ctx, client.ObjectKeyFromObject(content), content); err != nil || wanted(content) {
			return err
		}
		text, err := json.Marshal(content)
		return errors.Join(err, fmt.Errorf("the content is %s", text))
	})
}

func isReady(c *snapshotv1.VolumeSnapshotContent) bool {
	_, marked := c.Annotations[beingCreated]
	return c.Status != nil && ptr.Deref(c.Status.ReadyToUse, false) && !marked
}

// Upstream's snapshot-controller may be the other half.
func TestContentsOfAnotherSnapshotControllerAreServed(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	c := &otherController{w, w.Snapshots(t)}
	w.Snapshotter(t, eager...)
	w.SnapshotClass(t, c.api, nil)
	handle := w.Volume(t, "data", nil).Spec.CSI.VolumeHandle
	of := func(content *snapshotv1.VolumeSnapshotContent) { content.Spec.Source.VolumeHandle = &handle }

	t.Run("made and deleted", func(t *testing.T) {
		content := c.content(t, "one", of)
		c.is(t, content, isReady)
		there := w.Driver.Snapshots()
		if len(there) != 1 || there[0].Name != "snapshot-uid-of-one" || there[0].ID != ptr.Deref(content.Status.SnapshotHandle, "") ||
			ptr.Deref(content.Status.RestoreSize, 0) != 1<<30 || ptr.Deref(content.Status.CreationTime, 0) == 0 {
			t.Fatalf("the driver has %+v, and the content says %+v", there, content.Status)
		}
		c.release(t, content, beingDeleted)
		c.gone(t, content)
	})
	t.Run("kept by policy Retain, and deleted by hand", func(t *testing.T) {
		content := c.content(t, "kept", func(content *snapshotv1.VolumeSnapshotContent) {
			of(content)
			content.Spec.DeletionPolicy = snapshotv1.VolumeSnapshotContentRetain
		})
		c.is(t, content, isReady)
		kept := *content.Status.SnapshotHandle
		c.release(t, content, beingDeleted)
		world.Eventually(t, func(ctx context.Context) error {
			if err := c.api.Get(ctx, client.ObjectKeyFromObject(content), content); !apierrors.IsNotFound(err) {
				return errors.Join(err, errors.New("the content is there"))
			}
			return nil
		})
		if left := w.Driver.Snapshots(); len(left) != 1 || left[0].ID != kept {
			t.Fatalf("the driver has %+v", left)
		}
		c.taken(t, kept)
	})
	t.Run("deleted during the call, whose mark is overwritten", func(t *testing.T) {
		call := w.Driver.Block(csi.CreateSnapshot)
		content := c.content(t, "during", of)
		<-call.Arrived()
		c.release(t, content, beingDeleted)
		call.Release()
		c.gone(t, content)
	})
	t.Run("deleted during a call without an answer, whose mark is overwritten", func(t *testing.T) {
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
					return nil, status.Error(codes.DeadlineExceeded, "the answer was lost")
				}
				return resp, err
			},
		})
		defer w.Driver.SetHooks(csitest.Hooks{})
		content := c.content(t, "lost", of)
		<-arrived
		c.release(t, content, beingDeleted)
		close(released)
		c.gone(t, content)
	})
	t.Run("a group", func(t *testing.T) { c.group(t, handle, w.Volume(t, "log", nil).Spec.CSI.VolumeHandle) })
}

// taken imports a snapshot that is at the driver, and deletes it. The secret for
// that is only in the annotations, which an administrator has written.
func (c *otherController) taken(t *testing.T, handle string) {
	t.Helper()
	secret(t, c.World, "key")
	content := c.content(t, "given", func(content *snapshotv1.VolumeSnapshotContent) {
		content.Spec.Source.SnapshotHandle, content.Spec.VolumeSnapshotClassName = &handle, nil
		content.Spec.VolumeSnapshotRef = corev1.ObjectReference{Namespace: c.Namespace, Name: "given"}
	})
	patch(t, c.api, content, op{"add", "/spec/volumeSnapshotRef/uid", "uid-of-given"})
	c.is(t, content, isReady)
	if got := ptr.Deref(content.Status.SnapshotHandle, ""); got != handle {
		t.Errorf("the content says %q of snapshot %s", got, handle)
	}
	patch(t, c.api, content, op{"add", "/metadata/annotations", map[string]string{
		beingDeleted: "yes",
		"snapshot.storage.kubernetes.io/deletion-secret-name": "key", "snapshot.storage.kubernetes.io/deletion-secret-namespace": c.Namespace,
	}})
	must(t, c.api.Delete(t.Context(), content))
	c.gone(t, content)
	var last *csipb.DeleteSnapshotRequest
	for _, call := range c.Driver.Log() {
		if asked, ok := call.Request.(*csipb.DeleteSnapshotRequest); ok {
			last = asked
		}
	}
	if last.GetSnapshotId() != handle || last.GetSecrets()["key"] != "key" {
		t.Errorf("the driver was asked last for %v", last)
	}
}

// group makes a group and, when it is cut, its members: the content first, then
// whose it is, then what is known of it.
func (c *otherController) group(t *testing.T, volumes ...string) {
	c.GroupClass(t, c.api, nil)
	group := &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: c.Namespace + "-group"},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			VolumeGroupSnapshotRef:       corev1.ObjectReference{Namespace: c.Namespace, Name: "group", UID: "uid-of-group"},
			VolumeGroupSnapshotClassName: &c.Namespace, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, Driver: c.Name,
			Source: groupv1.VolumeGroupSnapshotContentSource{VolumeHandles: volumes},
		},
	}
	must(t, c.api.Create(t.Context(), group))
	c.protect(t, group, onGroupContent)
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
		member := c.content(t, fmt.Sprintf("member-%d", i), func(content *snapshotv1.VolumeSnapshotContent) {
			content.Annotations = map[string]string{memberOf: *group.Status.VolumeGroupSnapshotHandle}
			content.Spec.Source.VolumeHandle, content.Spec.VolumeSnapshotClassName = &info.VolumeHandle, nil
			content.Spec.VolumeSnapshotRef.UID = ""
		})
		patch(t, c.api, member, op{"add", "/spec/volumeSnapshotRef/uid", fmt.Sprintf("uid-of-member-%d", i)})
		patchStatus(t, c.api, member, op{"add", "/status", map[string]any{
			"snapshotHandle": info.SnapshotHandle, "volumeGroupSnapshotHandle": group.Status.VolumeGroupSnapshotHandle,
			"creationTime": info.CreationTime, "restoreSize": info.RestoreSize, "readyToUse": info.ReadyToUse,
		}})
		c.is(t, member, isReady)
		members = append(members, member)
	}
	c.release(t, group, groupBeingDeleted)
	for _, member := range members {
		patch(t, c.api, member, op{"add", "/metadata/annotations", map[string]string{beingDeleted: "yes", memberOf: *group.Status.VolumeGroupSnapshotHandle}})
		must(t, c.api.Delete(t.Context(), member))
	}
	for _, member := range members {
		c.gone(t, member)
	}
	c.gone(t, group)
	if got := []int{c.Driver.Calls(csi.CreateSnapshot), c.Driver.Calls(csi.DeleteSnapshot)}; !slices.Equal(got, single) {
		t.Errorf("members were made or deleted alone: %v calls, and %v before", got, single)
	}
}

// An otherSnapshotter plays upstream's csi-snapshotter.
type otherSnapshotter struct {
	*world.World
	api client.Client
}

// mark says that the driver is about to be asked, in a write of all annotations as
// they were seen.
func (o *otherSnapshotter) mark(t *testing.T, content *snapshotv1.VolumeSnapshotContent, seen map[string]string) {
	t.Helper()
	all := map[string]string{beingCreated: "yes"}
	for key, value := range seen {
		all[key] = value
	}
	patch(t, o.api, content, op{"add", "/metadata/annotations", all})
}

// cut asks the driver, writes what it says, and takes the mark off.
func (o *otherSnapshotter) cut(t *testing.T, content *snapshotv1.VolumeSnapshotContent, ready bool) string {
	t.Helper()
	handle := o.Cut(t, "snapshot-"+string(content.Spec.VolumeSnapshotRef.UID), *content.Spec.Source.VolumeHandle)
	patchStatus(t, o.api, content, op{"add", "/status", map[string]any{
		"snapshotHandle": handle, "readyToUse": ready, "creationTime": int64(1_700_000_000_000_000_000), "restoreSize": int64(1 << 30),
	}})
	patch(t, o.api, content, op{"remove", "/metadata/annotations/snapshot.storage.kubernetes.io~1volumesnapshot-being-created", nil})
	return handle
}

// released waits for the word that a content may go, and that it was deleted.
func (o *otherSnapshotter) released(t *testing.T, content *snapshotv1.VolumeSnapshotContent) {
	t.Helper()
	(&otherController{o.World, o.api}).is(t, content, func(c *snapshotv1.VolumeSnapshotContent) bool {
		return c.DeletionTimestamp != nil && c.Annotations[beingDeleted] == "yes" && slices.Contains(c.Finalizers, onContent)
	})
}

// remove deletes the snapshot at the driver, says so in the status, and lets the
// content go.
func (o *otherSnapshotter) remove(t *testing.T, content *snapshotv1.VolumeSnapshotContent) {
	t.Helper()
	must(t, o.CSI(t).WithPrecondition(csi.Unconditional).DeleteSnapshot(t.Context(), &csipb.DeleteSnapshotRequest{SnapshotId: *content.Status.SnapshotHandle}))
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{}
	must(t, o.api.Status().Update(t.Context(), content))
	patch(t, o.api, content, op{"replace", "/metadata/finalizers", []string{}})
}

// Upstream's csi-snapshotter may be the other half.
func TestAnotherSnapshotterServesContents(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	o := &otherSnapshotter{w, w.Snapshots(t)}
	w.SnapshotController(t, patient...) // No write that meets another one is a failure, to be tried again after an hour.
	w.Provisioner(t)
	w.Class(t, nil)
	w.SnapshotClass(t, o.api, nil)
	w.Claim(t, "data", nil)
	w.Bound(t, "data")

	t.Run("made, followed and deleted", func(t *testing.T) {
		content := w.Content(t, o.api, w.Snapshot(t, o.api, "one", "data", nil))
		o.mark(t, content, nil)
		handle := o.cut(t, content, false)
		w.SnapshotIs(t, o.api, "one", func(s *snapshotv1.VolumeSnapshotStatus) bool {
			return s.CreationTime != nil && s.CreationTime.Unix() == 1_700_000_000 && !*s.ReadyToUse && s.RestoreSize.Value() == 1<<30
		})
		patchStatus(t, o.api, content, op{"add", "/status/error", map[string]any{"message": "still uploading", "time": metav1.Now()}})
		w.SnapshotFailed(t, o.api, "one", "still uploading")
		patchStatus(t, o.api, content, op{"replace", "/status/readyToUse", true}, op{"remove", "/status/error", nil})
		if s := w.SnapshotReady(t, o.api, "one"); s.Status.Error != nil {
			t.Errorf("a ready snapshot has the error %+v", s.Status.Error)
		}
		w.DropSnapshot(t, o.api, "one")
		o.released(t, content)
		if got := ptr.Deref(content.Status.SnapshotHandle, ""); got != handle {
			t.Errorf("the content says %q of snapshot %s", got, handle)
		}
		o.remove(t, content)
		w.SnapshotGone(t, o.api, "one")
		w.NoSnapshotsLeft(t, o.api)
	})
	t.Run("the word is overwritten by the mark, and given again", func(t *testing.T) {
		content := w.Content(t, o.api, w.Snapshot(t, o.api, "brief", "data", nil))
		seen := content.Annotations
		w.DropSnapshot(t, o.api, "brief")
		o.released(t, content)
		o.mark(t, content, seen)
		o.cut(t, content, true)
		o.released(t, content)
		o.remove(t, content)
		w.SnapshotGone(t, o.api, "brief")
		w.NoSnapshotsLeft(t, o.api)
	})
	t.Run("kept by policy Retain", func(t *testing.T) {
		class := w.SnapshotClass(t, o.api, func(c *snapshotv1.VolumeSnapshotClass) {
			c.Name, c.DeletionPolicy = w.Namespace+"-keep", snapshotv1.VolumeSnapshotContentRetain
		})
		content := w.Content(t, o.api, w.Snapshot(t, o.api, "kept", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class.Name }))
		o.mark(t, content, nil)
		handle := o.cut(t, content, true)
		w.SnapshotReady(t, o.api, "kept")
		w.DropSnapshot(t, o.api, "kept")
		w.SnapshotGone(t, o.api, "kept")
		must(t, o.api.Get(t.Context(), client.ObjectKeyFromObject(content), content))
		if content.DeletionTimestamp != nil || content.Annotations[beingDeleted] != "yes" || *content.Status.SnapshotHandle != handle {
			t.Errorf("the content is %+v, %+v", content.ObjectMeta, content.Status)
		}
		must(t, o.api.Delete(t.Context(), content))
		o.released(t, content)
		o.remove(t, content)
		w.NoSnapshotsLeft(t, o.api)
	})
	t.Run("a snapshot that was there before", func(t *testing.T) { o.given(t) })
	t.Run("a group", func(t *testing.T) { o.group(t) })
}

// given is a snapshot that is imported: the csi-snapshotter fills in what the
// driver says of it when the content has the UID of its VolumeSnapshot.
func (o *otherSnapshotter) given(t *testing.T) {
	t.Helper()
	handle := o.Cut(t, "before", o.Bound(t, "data").Spec.CSI.VolumeHandle)
	bring(t, o.World, o.api, "given", at(handle, snapshotv1.VolumeSnapshotContentDelete))
	s := o.Snapshot(t, o.api, "given", "", imports(o.Namespace+"-given"))
	content := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: o.Namespace + "-given"}}
	(&otherController{o.World, o.api}).is(t, content, func(c *snapshotv1.VolumeSnapshotContent) bool {
		return c.Spec.VolumeSnapshotRef.UID == s.UID && slices.Contains(c.Finalizers, onContent)
	})
	patchStatus(t, o.api, content, op{"add", "/status", map[string]any{"snapshotHandle": handle, "readyToUse": true, "creationTime": int64(1_700_000_000_000_000_000)}})
	o.SnapshotReady(t, o.api, "given")
	o.DropSnapshot(t, o.api, "given")
	o.released(t, content)
	o.remove(t, content)
	o.SnapshotGone(t, o.api, "given")
	o.NoSnapshotsLeft(t, o.api)
}

// group cuts a group, and in the end deletes it and lets its members' contents go.
func (o *otherSnapshotter) group(t *testing.T) {
	t.Helper()
	o.GroupClass(t, o.api, nil)
	o.Claim(t, "log", labelled("app", "shop"))
	o.Bound(t, "log")
	group := o.Group(t, o.api, "all", shop, nil)
	content := &groupv1.VolumeGroupSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: "groupsnapcontent-" + string(group.UID)}}
	world.Eventually(t, func(ctx context.Context) error { return o.api.Get(ctx, client.ObjectKeyFromObject(content), content) })
	patch(t, o.api, content, op{"add", "/metadata/annotations", map[string]string{groupBeingCreated: "yes"}})
	made, err := o.CSI(t).CreateVolumeGroupSnapshot(t.Context(), &csipb.CreateVolumeGroupSnapshotRequest{
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
	patchStatus(t, o.api, content, op{"add", "/status", map[string]any{
		"volumeGroupSnapshotHandle": made.GetGroupSnapshotId(), "readyToUse": true, "creationTime": metav1.Now(), "volumeSnapshotInfoList": members,
	}})
	patch(t, o.api, content, op{"remove", "/metadata/annotations/groupsnapshot.storage.kubernetes.io~1volumegroupsnapshot-being-created", nil})
	parts := o.Members(t, o.api, o.GroupReady(t, o.api, "all"))
	if len(parts) != 1 || len(ids) != 1 {
		t.Fatalf("there are the members %+v, and the driver has %v", parts, ids)
	}

	o.DropGroup(t, o.api, "all")
	world.Eventually(t, func(ctx context.Context) error {
		err := o.api.Get(ctx, client.ObjectKeyFromObject(content), content)
		if err == nil && (content.DeletionTimestamp == nil || content.Annotations[groupBeingDeleted] != "yes") {
			err = fmt.Errorf("the content is %+v", content.ObjectMeta)
		}
		return err
	})
	must(t, o.CSI(t).WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(t.Context(), &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: made.GetGroupSnapshotId(), SnapshotIds: ids}))
	patchStatus(t, o.api, content, op{"remove", "/status/volumeGroupSnapshotHandle", nil}, op{"remove", "/status/readyToUse", nil}, op{"remove", "/status/creationTime", nil})
	patch(t, o.api, content, op{"replace", "/metadata/finalizers", []string{}})
	for _, part := range parts {
		member := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: *part.Status.BoundVolumeSnapshotContentName}}
		o.released(t, member)
		patch(t, o.api, member, op{"replace", "/metadata/finalizers", []string{}})
	}
	o.NoGroupsLeft(t, o.api)
}
