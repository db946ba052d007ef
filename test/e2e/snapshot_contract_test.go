package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A snapshot and a content that do not match are reported with the reasons that tools
// expect, and are bound when they match.
func TestBindingErrorsHaveUpstreamsReasons(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, instantRetries...)
	handle := w.CreateSnapshotAtDriver(t, "before", w.WaitBound(t, "data").Spec.CSI.VolumeHandle)
	kept := preProvisioned(handle, snapshotv1.VolumeSnapshotContentRetain)
	wants := func(name, reason, part string) {
		t.Helper()
		w.WaitSnapshotError(t, api, name, part)
		w.WaitEvent(t, "VolumeSnapshot/"+name, corev1.EventTypeWarning, reason, part)
	}
	own := func(name string) string { return w.Namespace + "-" + name }
	content := func(name string, ref corev1.ObjectReference, spec snapshotv1.VolumeSnapshotContentSpec) *snapshotv1.VolumeSnapshotContent {
		spec.Driver, spec.VolumeSnapshotRef = w.Name, ref
		c := &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: own(name)}, Spec: spec}
		must(t, api.Create(t.Context(), c))
		t.Cleanup(func() { must(t, client.IgnoreNotFound(api.Delete(context.Background(), c))) })
		return c
	}

	w.CreateSnapshot(t, api, "missing", "", fromContent(own("missing")))
	wants("missing", "SnapshotContentMissing", "does not exist")

	content("of-volume", corev1.ObjectReference{Namespace: w.Namespace, Name: "mismatch"}, snapshotv1.VolumeSnapshotContentSpec{
		Source: snapshotv1.VolumeSnapshotContentSource{VolumeHandle: ptr.To("any")}, DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain,
	})
	w.CreateSnapshot(t, api, "mismatch", "", fromContent(own("of-volume")))
	wants("mismatch", "SnapshotContentMismatch", "created from a volume")

	content("others", corev1.ObjectReference{Namespace: w.Namespace, Name: "somebody"}, kept)
	w.CreateSnapshot(t, api, "misbound", "", fromContent(own("others")))
	wants("misbound", "SnapshotContentMisbound", "bound to another snapshot")

	content("old", corev1.ObjectReference{Namespace: w.Namespace, Name: "again", UID: "of-one-that-is-gone"}, kept)
	w.CreateSnapshot(t, api, "again", "", fromContent(own("old")))
	wants("again", "SnapshotContentMisbound", `with uid "of-one-that-is-gone"`)

	brought := content("brought", corev1.ObjectReference{Namespace: w.Namespace, Name: "missing"}, kept)
	missing := &snapshotv1.VolumeSnapshot{}
	must(t, api.Get(t.Context(), client.ObjectKey{Namespace: w.Namespace, Name: "misbound"}, missing))
	if missing.Status.BoundVolumeSnapshotContentName != nil {
		t.Errorf("a snapshot with a wrong content is bound: %+v", missing.Status)
	}
	w.CreateSnapshot(t, api, "fits", "", fromContent(own("fits")))
	createContent(t, w, api, "fits", kept)
	w.WaitSnapshotReady(t, api, "fits")
	if brought.Spec.VolumeSnapshotRef.UID != "" {
		t.Errorf("a content that no snapshot names is %+v", brought.Spec)
	}
	must(t, api.Delete(t.Context(), &snapshotv1.VolumeSnapshotContent{ObjectMeta: metav1.ObjectMeta{Name: own("fits")}}))
	for _, name := range []string{"missing", "mismatch", "misbound", "again", "fits"} {
		w.DeleteSnapshot(t, api, name)
		w.WaitSnapshotGone(t, api, name)
	}
	if there := w.Driver.Snapshots(); len(there) != 1 {
		t.Errorf("the driver has %+v", there)
	}
}

// No snapshot is taken of a claim that is being deleted; and a claim is not deleted
// while a snapshot of it is being taken.
func TestClaimIsNotDeletedWhileItsSnapshotIsTaken(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	claims := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace)
	call := w.Driver.Block(csi.CreateSnapshot)
	w.CreateSnapshot(t, api, "first", "data", nil)
	<-call.Arrived()
	w.DeleteClaim(t, "data")
	claim, err := claims.Get(t.Context(), "data", metav1.GetOptions{})
	must(t, err)
	if claim.DeletionTimestamp == nil || !slices.Contains(claim.Finalizers, "snapshot.storage.kubernetes.io/pvc-as-source-protection") {
		t.Errorf("the claim has the finalizers %v", claim.Finalizers)
	}
	call.Release()
	w.WaitSnapshotReady(t, api, "first")
	w.WaitClaimGone(t, "data")

	hold := []byte(`{"metadata":{"finalizers":["example.com/hold"]}}`)
	w.CreateClaim(t, "going", nil)
	w.WaitBound(t, "going")
	_, err = claims.Patch(t.Context(), "going", types.MergePatchType, hold, metav1.PatchOptions{})
	must(t, err)
	w.DeleteClaim(t, "going")
	w.CreateSnapshot(t, api, "late", "going", nil)
	w.WaitSnapshotError(t, api, "late", "is being deleted")
	w.WaitEvent(t, "VolumeSnapshot/late", corev1.EventTypeWarning, "ErrorPVCFinalizer", "claim going is being deleted")
	_, err = claims.Patch(t.Context(), "going", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
	must(t, err)
	for _, name := range []string{"first", "late"} {
		w.DeleteSnapshot(t, api, name)
	}
	w.WaitNoSnapshotsLeft(t, api)
}

// A VolumeSnapshot may vanish by mistake: somebody removes its finalizers, or etcd is
// restored from a backup. The snapshot at the driver stays then, and so does the
// content, which refers to it.
func TestContentOutlivesSnapshotDeletedByForce(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, instantRetries...)
	s := w.CreateSnapshot(t, api, "taken", "data", nil)
	w.WaitSnapshotReady(t, api, "taken")
	content := w.WaitContent(t, api, s)
	must(t, api.Patch(t.Context(), s, world.RemoveFinalizers))
	w.DeleteSnapshot(t, api, "taken")
	w.WaitSnapshotGone(t, api, "taken")
	w.CreateSnapshot(t, api, "later", "data", nil) // Whoever acts on this one has acted on the other before.
	w.WaitSnapshotReady(t, api, "later")
	w.DeleteSnapshot(t, api, "later")
	w.WaitSnapshotGone(t, api, "later")
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(content), content))
	if there := w.Driver.Snapshots(); content.DeletionTimestamp != nil || len(there) != 1 || there[0].ID != *content.Status.SnapshotHandle {
		t.Errorf("the content is %+v, and the driver has %+v", content.ObjectMeta, there)
	}
	patch(t, api, content, patchOp{"add", "/metadata/annotations/snapshot.storage.kubernetes.io~1volumesnapshot-being-deleted", "yes"})
	must(t, api.Delete(t.Context(), content))
	w.WaitNoSnapshotsLeft(t, api)
}

// An error of the driver is reported, and the deletion is retried until it succeeds.
func TestFailedDeletionIsReportedAndRetried(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, instantRetries...)
	content := w.WaitContent(t, api, w.CreateSnapshot(t, api, "one", "data", nil))
	w.WaitSnapshotReady(t, api, "one")
	healed := make(chan struct{})
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, method csi.Method, _ any) error {
		select {
		case <-healed:
			return nil
		default:
		}
		if method == csi.DeleteSnapshot {
			return status.Error(codes.FailedPrecondition, "a volume still needs it")
		}
		return nil
	}})
	w.DeleteSnapshot(t, api, "one")
	w.WaitEvent(t, "VolumeSnapshotContent/"+content.Name, corev1.EventTypeWarning, "SnapshotDeleteError", "a volume still needs it")
	if there := w.Driver.Snapshots(); len(there) != 1 {
		t.Errorf("the driver has %+v", there)
	}
	close(healed)
	w.WaitSnapshotGone(t, api, "one")
	w.WaitNoSnapshotsLeft(t, api)
}

// The secret of a class is resolved once and sent with CreateSnapshot and
// DeleteSnapshot. A missing secret is reported, and retried.
func TestClassSecretIsSentToTheDriver(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, instantRetries...)
	w.CreateSnapshotClass(t, api, func(c *snapshotv1.VolumeSnapshotClass) {
		c.Name = w.Namespace + "-secret"
		c.Parameters = map[string]string{
			"csi.storage.k8s.io/snapshotter-secret-name":      "of-${volumesnapshot.name}",
			"csi.storage.k8s.io/snapshotter-secret-namespace": "${volumesnapshot.namespace}",
			"tier": "gold",
		}
	})
	w.CreateSnapshot(t, api, "one", "data", func(s *snapshotv1.VolumeSnapshot) { s.Spec.VolumeSnapshotClassName = ptr.To(w.Namespace + "-secret") })
	s := w.WaitSnapshotError(t, api, "one", `secrets "of-one" not found`)
	content := w.WaitContent(t, api, s)
	if name, namespace := content.Annotations["snapshot.storage.kubernetes.io/deletion-secret-name"], content.Annotations["snapshot.storage.kubernetes.io/deletion-secret-namespace"]; name != "of-one" || namespace != w.Namespace {
		t.Errorf("the content names the secret %s/%s", namespace, name)
	}
	createSecret(t, w, "of-one")
	w.WaitSnapshotReady(t, api, "one")
	w.DeleteSnapshot(t, api, "one")
	w.WaitNoSnapshotsLeft(t, api)
	for _, call := range w.Driver.Log() {
		switch request := call.Request.(type) {
		case *csipb.CreateSnapshotRequest:
			if request.GetSecrets()["key"] != "of-one" || len(request.GetParameters()) != 1 || request.GetParameters()["tier"] != "gold" {
				t.Errorf("the CreateSnapshot request is %v", request)
			}
		case *csipb.DeleteSnapshotRequest:
			if request.GetSecrets()["key"] != "of-one" {
				t.Errorf("the DeleteSnapshot request is %v", request)
			}
		}
	}
}

// Flags change the requests to the driver, and what a content records of its volume.
func TestSnapshotFlags(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		controller, snapshotter []string
		mode                    corev1.PersistentVolumeMode
		recorded                corev1.PersistentVolumeMode // on the content
		named                   func(s *snapshotv1.VolumeSnapshot) string
		described               bool
	}{
		"by default": {
			mode: corev1.PersistentVolumeBlock, recorded: corev1.PersistentVolumeBlock,
			named: func(s *snapshotv1.VolumeSnapshot) string { return "snapshot-" + string(s.UID) },
		},
		"with all of them": {
			controller:  []string{"--prevent-volume-mode-conversion=false"},
			snapshotter: []string{"--extra-create-metadata", "--snapshot-name-prefix=mine", "--snapshot-name-uuid-length=8"},
			mode:        corev1.PersistentVolumeBlock,
			named:       func(s *snapshotv1.VolumeSnapshot) string { return "mine-" + string(s.UID[:8]) },
			described:   true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{Record: true})
			api := w.SnapshotClient(t)
			w.StartSnapshotController(t, tt.controller...)
			w.StartSnapshotter(t, tt.snapshotter...)
			w.CreateSnapshotClass(t, api, nil)
			volume := w.CreatePV(t, "data", func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = &tt.mode })
			w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName, c.Spec.VolumeMode = volume.Name, &tt.mode })
			w.WaitBound(t, "data")
			w.CreateSnapshot(t, api, "one", "data", nil)
			s := w.WaitSnapshotReady(t, api, "one")
			content := w.WaitContent(t, api, s)
			if got := ptr.Deref(content.Spec.SourceVolumeMode, ""); got != tt.recorded {
				t.Errorf("the content's volume had mode %q", got)
			}
			if there := w.Driver.Snapshots(); len(there) != 1 || there[0].Name != tt.named(s) {
				t.Errorf("the driver has %+v", there)
			}
			want := map[string]string{}
			if tt.described {
				want = map[string]string{
					"csi.storage.k8s.io/volumesnapshot/name": "one", "csi.storage.k8s.io/volumesnapshot/namespace": w.Namespace,
					"csi.storage.k8s.io/volumesnapshotcontent/name": content.Name,
				}
			}
			for _, call := range w.Driver.Log() {
				if request, ok := call.Request.(*csipb.CreateSnapshotRequest); ok && fmt.Sprint(request.GetParameters()) != fmt.Sprint(want) {
					t.Errorf("the parameters at the driver are %v", request.GetParameters())
				}
			}
			w.DeleteSnapshot(t, api, "one")
			w.WaitNoSnapshotsLeft(t, api)
		})
	}
}

// Nothing is written without a change, not even by a process that has just started and
// resyncs all the time.
func TestNothingIsWrittenWhenNothingHasChanged(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{})
	w.CreateGroupClass(t, api, nil)
	claim := w.CreateClaim(t, "log", withLabels("app", "shop"))
	w.WaitBound(t, claim.Name)
	w.CreateSnapshot(t, api, "one", "data", nil)
	w.CreateGroup(t, api, "all", shop, nil)
	w.WaitSnapshotReady(t, api, "one")
	w.WaitGroupReady(t, api, "all")
	versions := func(ctx context.Context) (string, error) {
		singles, contents := &snapshotv1.VolumeSnapshotList{}, &snapshotv1.VolumeSnapshotContentList{}
		err := errors.Join(api.List(ctx, singles, client.InNamespace(w.Namespace)), api.List(ctx, contents))
		groups, failure := w.ListGroupContents(ctx, api)
		claims, failed := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).List(ctx, metav1.ListOptions{})
		if err = errors.Join(err, failure, failed); err != nil {
			return "", err
		}
		var all []string
		for _, s := range singles.Items {
			all = append(all, s.Name+" "+s.ResourceVersion)
		}
		for _, c := range contents.Items {
			if c.Spec.Driver == w.Name {
				all = append(all, c.Name+" "+c.ResourceVersion)
			}
		}
		for _, g := range groups {
			all = append(all, g.Name+" "+g.ResourceVersion)
		}
		for _, c := range claims.Items {
			all = append(all, c.Name+" "+c.ResourceVersion)
		}
		return strings.Join(all, "\n"), nil
	}
	var before string
	world.Eventually(t, func(ctx context.Context) error { // The claims' finalizers are removed a moment later.
		claims, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).List(ctx, metav1.ListOptions{})
		for i := range claims.Items {
			if slices.Contains(claims.Items[i].Finalizers, "snapshot.storage.kubernetes.io/pvc-as-source-protection") {
				err = errors.New("a claim is still protected")
			}
		}
		return err
	})
	world.Eventually(t, func(ctx context.Context) error {
		now, err := versions(ctx)
		was := before
		before = now
		if err == nil && now != was {
			err = errors.New("objects are still being written")
		}
		return err
	})
	made := w.Driver.Calls(csi.CreateSnapshot) + w.Driver.Calls(csi.CreateVolumeGroupSnapshot)
	first, second := world.FreeAddress(t), world.FreeAddress(t)
	w.StartSnapshotController(t, "--resync-period=100ms", "--http-endpoint="+first)
	w.StartSnapshotter(t, "--resync-period=100ms", "--http-endpoint="+second)
	waitForReconciles(t, first, "bind-snapshot", "bind-groupsnapshot")
	waitForReconciles(t, second, "create-snapshot", "create-groupsnapshot")
	now, err := versions(t.Context())
	must(t, err)
	if now != before {
		t.Errorf("objects were written; before:\n%s\nnow:\n%s", before, now)
	}
	if n := w.Driver.Calls(csi.CreateSnapshot) + w.Driver.Calls(csi.CreateVolumeGroupSnapshot); n != made {
		t.Errorf("the driver was called %d times more", n-made)
	}
	w.DeleteSnapshot(t, api, "one")
	w.DeleteGroup(t, api, "all")
	w.WaitNoGroupsLeft(t, api)
}

// waitForReconciles waits until each controller has reconciled five times.
func waitForReconciles(t *testing.T, address string, controllers ...string) {
	t.Helper()
	for _, name := range controllers {
		world.Eventually(t, func(ctx context.Context) error {
			metrics, err := world.HTTPGet(ctx, "http://"+address+"/metrics")
			if err != nil {
				return err
			}
			for line := range strings.Lines(metrics) {
				count, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), fmt.Sprintf("controller_runtime_reconcile_total{controller=%q,result=\"success\"} ", name))
				if n, err := strconv.Atoi(count); ok && err == nil && n >= 5 {
					return nil
				}
			}
			return fmt.Errorf("controller %s has not reconciled five times", name)
		})
	}
}

// For a driver without snapshots the role is deployed by mistake. It ends, so that
// users notice.
func TestDriverWithoutSnapshotsIsAnError(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{Controller: []csipb.ControllerServiceCapability_RPC_Type{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}})
	p := w.StartSnapshotter(t)
	var exit *exec.ExitError
	if err := p.Err(); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(p.Log(), "CREATE_DELETE_SNAPSHOT") {
		t.Errorf("it ended with %v and logged: %s", err, p.Log())
	}
}
