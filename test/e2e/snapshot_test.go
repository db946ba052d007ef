package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

// newSnapshotWorld returns a world with a bound claim, data, a snapshot class, a
// snapshot-controller and a csi-snapshotter. Without args nothing is retried while a
// test runs.
func newSnapshotWorld(t *testing.T, o csitest.Options, args ...string) (*world.World, client.Client) {
	t.Helper()
	o.Record = true
	w := world.New(t, o)
	api := w.SnapshotClient(t)
	w.StartProvisioner(t)
	w.StartSnapshotController(t, append(noRetries[:2:2], args...)...)
	w.StartSnapshotter(t, append(noRetries[:2:2], args...)...)
	w.CreateClass(t, nil)
	w.CreateSnapshotClass(t, api, nil)
	w.CreateClaim(t, "data", nil)
	w.WaitBound(t, "data")
	return w, api
}

func TestSnapshotIsTakenAndDeleted(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	w.CreateSnapshot(t, api, "one", "data", nil)
	s := w.WaitSnapshotReady(t, api, "one")
	content := w.WaitContent(t, api, s)
	there := w.Driver.Snapshots()
	if len(there) != 1 || there[0].ID != ptr.Deref(content.Status.SnapshotHandle, "") {
		t.Fatalf("the driver has %+v, the content says %+v", there, content.Status)
	}
	if s.Status.CreationTime.Year() < 2000 || s.Status.RestoreSize.Value() != 1<<30 || s.Status.Error != nil {
		t.Errorf("the status is %+v", s.Status)
	}
	if mode := ptr.Deref(content.Spec.SourceVolumeMode, ""); mode != corev1.PersistentVolumeFilesystem {
		t.Errorf("the content's volume had mode %q", mode)
	}
	w.WaitEvent(t, "VolumeSnapshot/one", corev1.EventTypeNormal, "SnapshotReady", "ready to use")
	if n := w.Driver.Calls(csi.CreateSnapshot); n != 1 {
		t.Errorf("CreateSnapshot was called %d times", n)
	}
	w.DeleteSnapshot(t, api, "one")
	w.WaitSnapshotGone(t, api, "one")
	w.WaitNoSnapshotsLeft(t, api)
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// A dependency that appears requeues the snapshot: no retry is due in this test.
func TestMissingDependencyIsReportedAndRequeuesSnapshot(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	class := func(name, driver string, isDefault bool) *snapshotv1.VolumeSnapshotClass {
		return w.CreateSnapshotClass(t, api, func(c *snapshotv1.VolumeSnapshotClass) {
			c.Name, c.Driver = w.Namespace+"-"+name, driver
			if isDefault {
				c.Annotations = map[string]string{snapshot.Single.Default: "true"}
			}
		})
	}
	named := func(name string) func(*snapshotv1.VolumeSnapshot) {
		return func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = ptr.To(w.Namespace + "-" + name) }
	}
	wants := func(name, reason, part string) {
		t.Helper()
		w.WaitSnapshotError(t, api, name, part)
		w.WaitEvent(t, "VolumeSnapshot/"+name, corev1.EventTypeWarning, reason, part)
	}

	w.CreateSnapshot(t, api, "class", "data", named("late"))
	wants("class", "GetSnapshotClassFailed", "VolumeSnapshotClass "+w.Namespace+"-late does not exist")
	class("late", w.Name, false)
	w.WaitSnapshotReady(t, api, "class")

	class("other", "other.example.com", false)
	w.CreateSnapshot(t, api, "foreign", "data", named("other"))
	wants("foreign", "GetSnapshotClassFailed", "is of driver other.example.com")

	w.CreateSnapshot(t, api, "default", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = nil })
	wants("default", "SetDefaultSnapshotClassFailed", "has no default")
	class("first", w.Name, true)
	if s := w.WaitSnapshotReady(t, api, "default"); ptr.Deref(s.Spec.VolumeSnapshotClassName, "") != w.Namespace+"-first" {
		t.Errorf("its class is %v", s.Spec.VolumeSnapshotClassName)
	}
	second := class("second", w.Name, true)
	w.CreateSnapshot(t, api, "torn", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = nil })
	wants("torn", "SetDefaultSnapshotClassFailed", "2 default snapshot classes")
	second.Annotations = nil
	must(t, api.Update(t.Context(), second))
	w.WaitSnapshotReady(t, api, "torn")

	w.CreateSnapshot(t, api, "early", "later", nil)
	wants("early", "SnapshotPVCSourceMissing", "claim later does not exist")
	w.CreateClaim(t, "later", nil)
	w.WaitSnapshotReady(t, api, "early")

	for _, name := range []string{"class", "foreign", "default", "torn", "early"} {
		w.DeleteSnapshot(t, api, name)
	}
	w.WaitNoSnapshotsLeft(t, api)
}

// The status has the driver's error, says whether it is terminal or transient, and is
// cleared when the call succeeds.
func TestDriverErrorIsReportedAndCleared(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, instantRetries...)
	var code codes.Code
	next := make(chan codes.Code, 1)
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, method csi.Method, _ any) error {
		if method != csi.CreateSnapshot {
			return nil
		}
		select {
		case code = <-next:
		default:
		}
		if code == codes.OK {
			return nil
		}
		return status.Error(code, "as the test says")
	}})
	next <- codes.InvalidArgument
	s := w.CreateSnapshot(t, api, "refused", "data", nil)
	w.WaitSnapshotError(t, api, "refused", "CreateSnapshot: InvalidArgument: as the test says (terminal")
	content := w.WaitContent(t, api, s)
	world.Eventually(t, func(ctx context.Context) error { // The retry comes soon, and sets the annotation again while it lasts.
		err := api.Get(ctx, client.ObjectKeyFromObject(content), content)
		if _, marked := content.Annotations[snapshot.Single.BeingCreated]; err == nil && marked {
			return errors.New("the content still has the being-created annotation after a terminal error")
		}
		return err
	})
	next <- codes.Unavailable
	w.WaitSnapshotError(t, api, "refused", "CreateSnapshot: Unavailable: as the test says (transient")
	w.WaitEvent(t, "VolumeSnapshotContent/"+content.Name, corev1.EventTypeWarning, "SnapshotContentCheckandUpdateFailed", "Unavailable")
	next <- codes.OK
	if ready := w.WaitSnapshotReady(t, api, "refused"); ready.Status.Error != nil {
		t.Errorf("a ready snapshot has the error %v", *ready.Status.Error.Message)
	}
	w.DeleteSnapshot(t, api, "refused")
	w.WaitNoSnapshotsLeft(t, api)
}

// The claim is needed only until the snapshot is taken. The upload afterwards is
// followed with the best capability of the driver.
func TestSlowSnapshotIsFollowedAndItsClaimUnprotected(t *testing.T) {
	rpc := func(extra ...csipb.ControllerServiceCapability_RPC_Type) []csipb.ControllerServiceCapability_RPC_Type {
		return append(extra, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME, csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT)
	}
	get, list := csipb.ControllerServiceCapability_RPC_GET_SNAPSHOT, csipb.ControllerServiceCapability_RPC_LIST_SNAPSHOTS
	tests := map[string]struct {
		can    []csipb.ControllerServiceCapability_RPC_Type
		method csi.Method
	}{
		"by GetSnapshot":         {rpc(get, list), csi.GetSnapshot},
		"else by ListSnapshots":  {rpc(list), csi.ListSnapshots},
		"else by CreateSnapshot": {rpc(), csi.CreateSnapshot},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, api := newSnapshotWorld(t, csitest.Options{SnapshotReadyAfter: 1 << 30, Controller: tt.can})
			w.CreateSnapshot(t, api, "slow", "data", nil)
			w.WaitSnapshot(t, api, "slow", func(s *snapshotv1.VolumeSnapshotStatus) bool { return s.CreationTime != nil && !*s.ReadyToUse })
			w.WaitEvent(t, "VolumeSnapshot/slow", corev1.EventTypeNormal, "SnapshotCreated", "created by the CSI driver")
			waitClaimProtection(t, w, "data", false)
			w.WaitCalls(t, tt.method, w.Driver.Calls(tt.method)+2)
			w.Driver.Reconfigure(func(o *csitest.Options) { o.SnapshotReadyAfter = 0 })
			w.WaitSnapshotReady(t, api, "slow")
			w.DeleteSnapshot(t, api, "slow")
			w.WaitNoSnapshotsLeft(t, api)
		})
	}
}

// A snapshot that is deleted at any moment of its creation leaves nothing.
func TestSnapshotIsDeletedDuringCreation(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, instantRetries...)
	t.Run("during the call", func(t *testing.T) {
		call := w.Driver.Block(csi.CreateSnapshot)
		w.CreateSnapshot(t, api, "during", "data", nil)
		<-call.Arrived()
		w.DeleteSnapshot(t, api, "during")
		call.Release()
		w.WaitSnapshotGone(t, api, "during")
		w.WaitNoSnapshotsLeft(t, api)
	})
	t.Run("after a lost response, with its class deleted", func(t *testing.T) {
		class := w.CreateSnapshotClass(t, api, func(c *snapshotv1.VolumeSnapshotClass) {
			c.Name, c.Parameters = w.Namespace+"-brief", map[string]string{"tier": "gold"}
		})
		w.Driver.LoseResponse(csi.CreateSnapshot)
		call, first := make(chan struct{}), w.Driver.Calls(csi.CreateSnapshot)+1
		w.Driver.SetHooks(csitest.Hooks{Before: func(ctx context.Context, method csi.Method, req any) error {
			if r, ok := req.(*csipb.CreateSnapshotRequest); ok && r.GetParameters()["tier"] != "gold" {
				t.Errorf("the retry has the parameters %v", r.GetParameters())
			}
			if method == csi.CreateSnapshot && w.Driver.Calls(csi.CreateSnapshot) > first {
				select {
				case <-call:
				case <-ctx.Done():
				}
			}
			return nil
		}})
		defer w.Driver.SetHooks(csitest.Hooks{})
		w.CreateSnapshot(t, api, "lost", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class.Name })
		world.Eventually(t, func(context.Context) error {
			if len(w.Driver.Snapshots()) == 0 {
				return errors.New("it is not taken yet")
			}
			return nil
		})
		must(t, api.Delete(t.Context(), class))
		w.DeleteSnapshot(t, api, "lost")
		close(call)
		w.WaitSnapshotGone(t, api, "lost")
		w.WaitNoSnapshotsLeft(t, api)
	})
	t.Run("while it is uploading", func(t *testing.T) {
		w.Driver.Reconfigure(func(o *csitest.Options) { o.SnapshotReadyAfter = 1 << 30 })
		w.CreateSnapshot(t, api, "uploading", "data", nil)
		w.WaitSnapshot(t, api, "uploading", func(s *snapshotv1.VolumeSnapshotStatus) bool { return s.CreationTime != nil })
		w.DeleteSnapshot(t, api, "uploading")
		w.WaitSnapshotGone(t, api, "uploading")
		w.WaitNoSnapshotsLeft(t, api)
	})
}

func TestRetainedSnapshotCanBeImported(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	class := w.CreateSnapshotClass(t, api, func(c *snapshotv1.VolumeSnapshotClass) {
		c.Name, c.DeletionPolicy = w.Namespace+"-keep", snapshotv1.VolumeSnapshotContentRetain
	})
	w.CreateSnapshot(t, api, "kept", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = &class.Name })
	content := w.WaitContent(t, api, w.WaitSnapshotReady(t, api, "kept"))
	w.DeleteSnapshot(t, api, "kept")
	w.WaitSnapshotGone(t, api, "kept")
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(content), content))
	handle := *content.Status.SnapshotHandle
	must(t, api.Delete(t.Context(), content))
	world.Eventually(t, func(ctx context.Context) error {
		contents, err := w.ListContents(ctx, api)
		if err == nil && len(contents) > 0 {
			err = errors.New("the content still exists")
		}
		return err
	})
	if there := w.Driver.Snapshots(); len(there) != 1 || there[0].ID != handle {
		t.Fatalf("the driver has %+v", there)
	}
	t.Run("the content first", func(t *testing.T) { importRestoreAndDelete(t, w, api, handle, true) })
	t.Run("the snapshot first", func(t *testing.T) { importRestoreAndDelete(t, w, api, handle, false) })
	w.CreateSnapshot(t, api, "last", "", fromContent(w.Namespace+"-last"))
	createContent(t, w, api, "last", preProvisioned(handle, snapshotv1.VolumeSnapshotContentDelete))
	w.WaitSnapshotReady(t, api, "last")
	w.DeleteSnapshot(t, api, "last")
	w.WaitNoSnapshotsLeft(t, api)
}

// importRestoreAndDelete imports a snapshot that exists at the driver, restores it,
// and deletes it without deleting it at the driver.
func importRestoreAndDelete(t *testing.T, w *world.World, api client.Client, handle string, contentFirst bool) {
	name := fmt.Sprintf("import-%v", contentFirst)
	if contentFirst {
		createContent(t, w, api, name, preProvisioned(handle, snapshotv1.VolumeSnapshotContentRetain))
	}
	w.CreateSnapshot(t, api, name, "", fromContent(w.Namespace+"-"+name))
	if !contentFirst {
		w.WaitSnapshotError(t, api, name, "does not exist")
		createContent(t, w, api, name, preProvisioned(handle, snapshotv1.VolumeSnapshotContentRetain))
	}
	w.WaitSnapshotReady(t, api, name)
	w.CreateClaim(t, name, withSource("VolumeSnapshot", name))
	w.WaitBound(t, name)
	w.DeleteSnapshot(t, api, name)
	w.WaitSnapshotGone(t, api, name)
	if len(w.Driver.Snapshots()) != 1 {
		t.Errorf("the driver has %+v", w.Driver.Snapshots())
	}
	must(t, api.Delete(t.Context(), &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-" + name}}))
}

func fromContent(content string) func(*snapshotv1.VolumeSnapshot) {
	return func(s *snapshotv1.VolumeSnapshot) {
		s.Spec = snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &content}}
	}
}

// createContent creates the content of a snapshot that exists at the driver, for a
// VolumeSnapshot of that name.
func createContent(t *testing.T, w *world.World, api client.Client, name string, spec snapshotv1.VolumeSnapshotContentSpec) {
	t.Helper()
	spec.Driver, spec.VolumeSnapshotRef = w.Name, corev1.ObjectReference{Namespace: w.Namespace, Name: name}
	must(t, api.Create(t.Context(), &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-" + name}, Spec: spec}))
}

// preProvisioned returns the spec of a content for a handle, with a deletion policy.
func preProvisioned(handle string, policy snapshotv1.DeletionPolicy) snapshotv1.VolumeSnapshotContentSpec {
	return snapshotv1.VolumeSnapshotContentSpec{Source: snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle}, DeletionPolicy: policy}
}

func TestRestoreBlocksDeletionOfItsSnapshot(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	w.CreateSnapshot(t, api, "wanted", "data", nil)
	w.WaitSnapshotReady(t, api, "wanted")
	call := w.Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", "wanted"))
	<-call.Arrived()
	w.DeleteSnapshot(t, api, "wanted")
	w.WaitEvent(t, "VolumeSnapshot/wanted", corev1.EventTypeWarning, "SnapshotDeletePending", w.Namespace+"/restored waits")
	if len(w.Driver.Snapshots()) != 1 {
		t.Error("the snapshot was deleted while a volume was being created from it")
	}
	call.Release()
	w.WaitBound(t, "restored")
	w.WaitSnapshotGone(t, api, "wanted")
	w.WaitNoSnapshotsLeft(t, api)
}

// withUnknownClass gives a claim a class that does not exist: it stays pending, as a
// claim whose pod never comes.
func withUnknownClass(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = ptr.To("nobodys") }

// A deleted snapshot waits for claims of its namespace that were created before the
// deletion. Later claims do not block it, nor do claims of other namespaces, which
// anybody can create without a grant.
func TestDeletedSnapshotWaitsOnlyForOlderClaims(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	w.CreateSnapshot(t, api, "wanted", "data", nil)
	w.WaitSnapshotReady(t, api, "wanted")
	foreign := inNewNamespace(t, w)
	foreign.CreateClaim(t, "foreign", func(c *corev1.PersistentVolumeClaim) {
		withUnknownClass(c)
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{
			APIGroup: ptr.To(snapshotv1.GroupName), Kind: "VolumeSnapshot", Name: "wanted", Namespace: &w.Namespace,
		}
	})
	before := func(c *corev1.PersistentVolumeClaim) { withUnknownClass(c); withSource("VolumeSnapshot", "wanted")(c) }
	w.CreateClaim(t, "before", before)
	w.DeleteSnapshot(t, api, "wanted")
	w.WaitEvent(t, "VolumeSnapshot/wanted", corev1.EventTypeWarning, "SnapshotDeletePending", "claim "+w.Namespace+"/before waits")
	createClaimAfterDeletion(t, w, api, "wanted", before)
	w.DeleteClaim(t, "before")
	w.WaitSnapshotGone(t, api, "wanted")
	w.WaitNoSnapshotsLeft(t, api)
	foreign.WaitClaim(t, "foreign", checkPending)
	w.WaitClaim(t, "after", checkPending)
}

// createClaimAfterDeletion creates the claim after, in a later second than the
// deletion of a snapshot.
func createClaimAfterDeletion(t *testing.T, w *world.World, api client.Client, snapshot string, change func(*corev1.PersistentVolumeClaim)) {
	t.Helper()
	s := &snapshotv1.VolumeSnapshot{}
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: w.Namespace, Name: snapshot}, s))
	waitNextSecond(t, s.DeletionTimestamp.Time)
	if made := w.CreateClaim(t, "after", change); !made.CreationTimestamp.After(s.DeletionTimestamp.Time) {
		t.Fatalf("the claim was created at %s, and the snapshot deleted at %s", made.CreationTimestamp, s.DeletionTimestamp)
	}
}

func checkPending(c *corev1.PersistentVolumeClaim) error {
	if c.Status.Phase != corev1.ClaimPending {
		return fmt.Errorf("claim %s is %s", c.Name, c.Status.Phase)
	}
	return nil
}

// Only deleting the snapshot allows deleting the content. A content that somebody
// deletes before waits, and its snapshot can still be restored.
func TestContentDeletedByHandWaitsForItsSnapshot(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	w.CreateSnapshot(t, api, "lives", "data", nil)
	content := w.WaitContent(t, api, w.WaitSnapshotReady(t, api, "lives"))
	must(t, api.Delete(t.Context(), content))
	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", "lives"))
	w.WaitBound(t, "restored")
	if len(w.Driver.Snapshots()) != 1 {
		t.Error("the snapshot was deleted although its VolumeSnapshot exists")
	}
	w.DeleteSnapshot(t, api, "lives")
	w.WaitSnapshotGone(t, api, "lives")
	w.WaitNoSnapshotsLeft(t, api)
}

// Each node's csi-snapshotter works on the contents of that node's volumes.
func TestSnapshotsAreTakenOnTheirNode(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Record: true})
	api := w.SnapshotClient(t)
	w.StartSnapshotController(t, "--enable-distributed-snapshotting")
	w.CreateSnapshotClass(t, api, nil)
	w.StartSnapshotterOnNode(t, w.Namespace+"-here")
	for _, node := range []string{"here", "there"} {
		createClaimOnNode(t, w, node)
		w.CreateSnapshot(t, api, "on-"+node, "on-"+node, nil)
	}
	w.WaitSnapshotReady(t, api, "on-here")
	there := &snapshotv1.VolumeSnapshot{}
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: w.Namespace, Name: "on-there"}, there))
	content := w.WaitContent(t, api, there)
	w.WaitEvent(t, "VolumeSnapshot/on-there", corev1.EventTypeWarning, "SnapshotNotServed", "is one running?")
	if content.Labels[snapshot.ManagedBy] != w.Namespace+"-there" || content.Status != nil {
		t.Errorf("the labels are %v and the status is %v", content.Labels, content.Status)
	}
	for _, node := range []string{"here", "there"} {
		w.DeleteSnapshot(t, api, "on-"+node)
	}
	w.WaitSnapshotGone(t, api, "on-here")
	// The other one was not started, and its node has no csi-snapshotter yet.
	w.StartSnapshotterOnNode(t, w.Namespace+"-there")
	w.WaitNoSnapshotsLeft(t, api)
}

// placeLabel is the label of a node that volumes of [createBoundClaimOn] select.
func placeLabel(node string) map[string]string { return map[string]string{"place": node} }

// createClaimOnNode creates a node and a bound claim, on-NODE, whose volume can only
// be used there.
func createClaimOnNode(t *testing.T, w *world.World, node string) {
	t.Helper()
	w.CreateNode(t, w.Namespace+"-"+node, placeLabel(w.Namespace+"-"+node))
	createBoundClaimOn(t, w, w.Namespace+"-"+node, "on-"+node, nil)
}

// createBoundClaimOn creates a bound claim whose volume can only be used on a node, or
// anywhere if node is empty.
func createBoundClaimOn(t *testing.T, w *world.World, node, claim string, change func(*corev1.PersistentVolumeClaim)) {
	t.Helper()
	volume := w.CreatePV(t, claim, func(v *corev1.PersistentVolume) {
		if node == "" {
			return
		}
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "place", Operator: corev1.NodeSelectorOpIn, Values: []string{node}}},
		}}}}
	})
	w.CreateClaim(t, claim, func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName = volume.Name
		if change != nil {
			change(c)
		}
	})
	w.WaitBound(t, claim)
}
