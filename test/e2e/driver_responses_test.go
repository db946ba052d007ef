package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/test/world"
)

// These tests cover odd responses of drivers, and volumes that nobody can use.

// An error does not resolve an earlier call whose response was lost or late. The
// volume may exist, and stays on record until its outcome is known.
func TestErrorDoesNotResolveEarlierUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.Internal, codes.Unknown, codes.AlreadyExists, codes.ResourceExhausted, codes.InvalidArgument, codes.OutOfRange,
		codes.NotFound, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{})
			w.CreateClass(t, nil)
			var failing atomic.Bool
			w.Driver.LoseResponse(csi.CreateVolume)
			w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, m csi.Method, _ any) error {
				if m == csi.CreateVolume && w.Driver.Calls(csi.CreateVolume) > 1 && failing.Load() {
					return status.Error(code, "not today")
				}
				return nil
			}})
			failing.Store(true)
			w.StartProvisioner(t, fastRetries...)
			w.CreateClaim(t, "data", nil)
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "not today")
			w.DeleteClaim(t, "data")
			waitForAnotherCall(t, w, csi.CreateVolume)
			failing.Store(false)
			w.WaitNothingLeft(t)
		})
	}
}

// waitForAnotherCall waits until a method is called again.
func waitForAnotherCall(t *testing.T, w *world.World, method csi.Method) {
	t.Helper()
	w.WaitCalls(t, method, w.Driver.Calls(method)+2) // One may have begun before.
}

// A call that times out may still do its work. A later error does not resolve it.
func TestVolumeCreatedAfterTimeoutIsDeleted(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	slow := w.Driver.Block(csi.CreateVolume)
	w.Driver.FailNext(csi.CreateVolume, codes.Internal, "not today")
	w.StartProvisioner(t, append(fastRetries, "--timeout=1s")...)
	w.CreateClaim(t, "data", nil)
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "not today")
	w.DeleteClaim(t, "data")
	slow.Release()
	w.WaitNothingLeft(t)
}

// The first call may have created the volume in the requested zone. The retry must not
// request another zone under the same name.
func TestUnknownOutcomeIsResolvedInItsZone(t *testing.T) {
	t.Parallel()
	w := &capacityWorld{world.New(t, csitest.Options{Segments: []map[string]string{{zoneKey: "a"}, {zoneKey: "b"}}, Record: true})}
	w.addNode(t, "a")
	w.addNode(t, "b")
	class := w.createDelayedClass(t, "")
	w.Driver.LoseResponse(csi.CreateVolume)
	for range 3 {
		w.Driver.FailNext(csi.CreateVolume, codes.ResourceExhausted, "no room in zone a")
	}
	w.StartProvisioner(t, append(fastRetries, "--strict-topology")...)
	w.createClaimInZone(t, "data", "a", "1Gi")
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "no room in zone a")
	volume := w.WaitBound(t, "data")
	if volume.Spec.StorageClassName != class {
		t.Errorf("the volume is of class %s", volume.Spec.StorageClassName)
	}
	for _, call := range w.Driver.Log() {
		r, ok := call.Request.(*csipb.CreateVolumeRequest)
		if !ok {
			continue
		}
		for _, place := range r.GetAccessibilityRequirements().GetRequisite() {
			if place.GetSegments()[zoneKey] != "a" {
				t.Errorf("the volume was requested in %v", place)
			}
		}
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// If the API server rejects the PersistentVolume, the driver's volume is deleted, and
// an event on the claim says why.
func TestVolumeWithoutPersistentVolumeIsDeleted(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(w *world.World, v *csipb.Volume)
		before func(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim)
		said   string
	}{
		"its topology segment is no valid label value": {change: func(_ *world.World, v *csipb.Volume) {
			v.AccessibleTopology = []*csipb.Topology{{Segments: map[string]string{"topology.odd/zone": "Rack 7 / Row B"}}}
		}, said: "Rack 7 / Row B"},
		"its attributes are too large": {change: func(_ *world.World, v *csipb.Volume) {
			// More than the API server accepts, and less than the limit of a response.
			v.VolumeContext = map[string]string{"large": strings.Repeat("x", 7<<19)}
		}, said: "creating PersistentVolume"},
		"its name is used by another object": {before: func(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim) {
			w.CreatePV(t, "foreign", func(v *corev1.PersistentVolume) {
				v.Name = "pvc-" + string(claim.UID)
				// Of the claim's class, the controller manager could bind the claim to it.
				v.Spec.StorageClassName = ""
				v.Spec.CSI = nil
				v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/nowhere"}
			})
		}, said: "another PersistentVolume of that name exists"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{})
			w.CreateClass(t, nil)
			if tt.change != nil {
				changeResponses(w, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) { tt.change(w, r.GetVolume()) })
			}
			claim := w.CreateClaim(t, "data", nil)
			others := 0
			if tt.before != nil {
				tt.before(t, w, claim)
				others = len(w.Driver.Volumes())
			}
			w.StartProvisioner(t, fastRetries...)
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", tt.said)
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "is deleted")
			w.DeleteClaim(t, "data")
			world.Eventually(t, func(ctx context.Context) error {
				leases, err := w.Client.CoordinationV1().Leases(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: pending.DriverLabel})
				if err != nil {
					return err
				}
				if left := w.Driver.Volumes(); len(left) != others || len(leases.Items) > 0 {
					return fmt.Errorf("left are %d volumes at the driver and %d pending operations", len(left)-others, len(leases.Items))
				}
				return nil
			})
			calls := w.Driver.Calls(csi.CreateVolume)
			w.CreateClaim(t, "other", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new(string) })
			if now := w.Driver.Calls(csi.CreateVolume); now != calls {
				t.Errorf("CreateVolume was called %d times more for a volume that nobody wants", now-calls)
			}
		})
	}
}

// A volume that is too small, or may be empty, is deleted. It does not exist any more,
// so the driver is not called again for a claim that is gone.
func TestVolumeOfUnusableResponseIsDeleted(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	changeResponses(w, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) { r.Volume.CapacityBytes = 1 << 30 })
	w.StartProvisioner(t, fastRetries...)
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("2Gi")
	})
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "less than the required")
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
	if made, deleted := w.Driver.Calls(csi.CreateVolume), w.Driver.Calls(csi.DeleteVolume); made != deleted {
		t.Errorf("%d volumes were created and %d deleted", made, deleted)
	}
}

// Cleaning up after an unusable response does not delete a volume that another claim
// uses.
func TestVolumeInUseIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	w.StartProvisioner(t, fastRetries...)
	w.CreateClaim(t, "first", nil)
	first := w.WaitBound(t, "first")
	changeResponses(w, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) {
		r.Volume.VolumeId, r.Volume.CapacityBytes = first.Spec.CSI.VolumeHandle, 1
	})
	w.CreateClaim(t, "second", nil)
	w.WaitClaimEvent(t, "second", corev1.EventTypeWarning, "ProvisioningFailed", "less than the required")
	w.DeleteClaim(t, "second")
	world.Eventually(t, func(ctx context.Context) error {
		leases, err := w.Client.CoordinationV1().Leases(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: pending.DriverLabel})
		if err == nil && len(leases.Items) > 0 {
			err = errors.New("the pending operation is left")
		}
		return err
	})
	if n := w.Driver.Calls(csi.DeleteVolume); n != 0 {
		t.Errorf("DeleteVolume was called %d times for a volume in use", n)
	}
}

// Drivers may return a content source in their own notation: GCE PD gets
// projects/P/global/snapshots/S and returns a number.
func TestContentSourceInDriversNotationIsAccepted(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.CreateClass(t, nil)
	w.StartProvisioner(t, fastRetries...)
	w.CreateClaim(t, "source", nil)
	createReadySnapshot(t, w, api, w.WaitBound(t, "source"), "before")
	changeResponses(w, csi.CreateVolume, func(r *csipb.CreateVolumeResponse) {
		if r.GetVolume().GetContentSource() != nil {
			r.Volume.ContentSource = &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{
				Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: "1234567890"},
			}}
		}
	})
	w.CreateClaim(t, "restored", withSource("VolumeSnapshot", "before"))
	w.WaitBound(t, "restored")
	w.CreateClaim(t, "cloned", withSource("PersistentVolumeClaim", "source"))
	w.WaitBound(t, "cloned")
	if n := w.Driver.Calls(csi.CreateVolume); n != 3 {
		t.Errorf("CreateVolume was called %d times for three volumes", n)
	}
}

// The provisioner decides a deletion when it sends the call, not when it queues it: an
// administrator who sets Retain meanwhile saves the data.
func TestPolicyIsReadBeforeEachDeletion(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	w.StartProvisioner(t, append([]string{"--max-concurrent-calls=1"}, fastRetries...)...)
	for _, name := range []string{"first", "second"} {
		w.CreateClaim(t, name, nil)
	}
	first, second := w.WaitBound(t, "first"), w.WaitBound(t, "second")
	slow := w.Driver.Block(csi.DeleteVolume)
	w.DeleteClaim(t, "first")
	<-slow.Arrived()
	w.DeleteClaim(t, "second")
	w.WaitPVPhase(t, second.Name, corev1.VolumeReleased)
	// Another volume shows that the provisioner has seen the release of the second.
	w.CreateClaim(t, "third", nil)
	w.WaitBound(t, "third")
	w.SetReclaimPolicy(t, second.Name, corev1.PersistentVolumeReclaimRetain)
	slow.Release()
	w.WaitPVGone(t, first)
	w.DeleteClaim(t, "third")
	world.Eventually(t, func(ctx context.Context) error {
		v, err := w.Client.CoreV1().PersistentVolumes().Get(ctx, second.Name, metav1.GetOptions{})
		if err == nil && len(v.Finalizers) > 1 {
			err = fmt.Errorf("the volume still has the finalizers %q", v.Finalizers)
		}
		if left := w.Driver.Volumes(); err == nil && len(left) != 1 {
			err = fmt.Errorf("the driver has %d volumes", len(left))
		}
		return err
	})
	if left := w.Driver.Volumes()[0].ID; left != second.Spec.CSI.VolumeHandle {
		t.Errorf("the driver still has %s", left)
	}
}

// An administrator removes the claimRef of a volume while its deletion fails. The
// volume is then deleted with its object, according to the policy.
func TestVolumeWithRemovedClaimRefIsDeletedByPolicy(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	w.StartProvisioner(t, fastRetries...)
	w.CreateClaim(t, "data", nil)
	volume := w.WaitBound(t, "data")
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, m csi.Method, _ any) error {
		if m == csi.DeleteVolume {
			return status.Error(codes.FailedPrecondition, "somebody uses it")
		}
		return nil
	}})
	w.DeleteClaim(t, "data")
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, corev1.EventTypeWarning, "VolumeFailedDelete", "somebody uses it")
	volumes := w.Client.CoreV1().PersistentVolumes()
	_, err := volumes.Patch(t.Context(), volume.Name, types.MergePatchType, []byte(`{"spec":{"claimRef":null}}`), metav1.PatchOptions{})
	must(t, err)
	w.WaitPVPhase(t, volume.Name, corev1.VolumeAvailable)
	w.Driver.SetHooks(csitest.Hooks{})
	must(t, volumes.Delete(t.Context(), volume.Name, metav1.DeleteOptions{}))
	w.WaitPVGone(t, volume)
	w.WaitNothingLeft(t)
}

// A claim that is older than the deletion of its snapshot, and waited for its first
// consumer, is restored. A younger one is not.
func TestDeletedSnapshotIsRestoredToOlderClaims(t *testing.T) {
	t.Parallel()
	w := &capacityWorld{world.New(t, csitest.Options{Segments: []map[string]string{{zoneKey: "a"}}})}
	api := w.SnapshotClient(t)
	w.addNode(t, "a")
	w.createDelayedClass(t, "")
	w.StartProvisioner(t, fastRetries...)
	w.createClaimInZone(t, "source", "a", "1Gi")
	snapshot := createReadySnapshot(t, w.World, api, w.WaitBound(t, "source"), "before")
	snapshot.Finalizers = []string{"example.com/snapshot-controller"} // It waits for the claim.
	must(t, api.Update(t.Context(), snapshot))
	t.Cleanup(func() {
		patch := world.RemoveFinalizers
		must(t, client.IgnoreNotFound(api.Patch(context.Background(), snapshot, patch)))
	})
	w.CreateClaim(t, "older", withSource("VolumeSnapshot", "before"))
	must(t, api.Delete(t.Context(), snapshot))
	must(t, api.Get(t.Context(), client.ObjectKeyFromObject(snapshot), snapshot))
	selectNode(t, w, "older", "a")
	w.WaitBound(t, "older")

	waitNextSecond(t, snapshot.DeletionTimestamp.Time)
	w.CreateClaim(t, "younger", withSource("VolumeSnapshot", "before"))
	selectNode(t, w, "younger", "a")
	w.WaitClaimEvent(t, "younger", corev1.EventTypeWarning, "ProvisioningFailed", "is being deleted")
}

// selectNode selects a node for a claim, as the scheduler does.
func selectNode(t *testing.T, w *capacityWorld, claim, zone string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":%q}}}`, w.nodeName(zone))
	_, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Patch(t.Context(), claim, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	must(t, err)
}

// Upstream's csi-provisioner keeps no record of its restores. Its replacement keeps a
// snapshot protected while a claim waits for it.
func TestMigrationKeepsProtectionForWaitingClaims(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	api := w.SnapshotClient(t)
	w.CreateClass(t, nil)
	first := w.StartProvisioner(t, fastRetries...)
	w.CreateClaim(t, "source", nil)
	volume := w.WaitBound(t, "source")
	waited, idle := createReadySnapshot(t, w, api, volume, "waited"), createReadySnapshot(t, w, api, volume, "idle")
	first.Kill()
	for _, s := range []*snapshotv1.VolumeSnapshot{waited, idle} {
		s.Finalizers = append(s.Finalizers, kube.SnapshotSourceFinalizer)
		must(t, api.Update(t.Context(), s))
	}
	w.CreateClaim(t, "restored", func(c *corev1.PersistentVolumeClaim) {
		withSource("VolumeSnapshot", "waited")(c)
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}} // This provisioner does not start with such a claim.
	})
	w.StartProvisioner(t, fastRetries...)
	waitUnprotected(t, api, idle)
	if !isProtected(t, api, waited) {
		t.Error("the snapshot of a waiting claim is not protected any more")
	}
	w.DeleteClaim(t, "restored")
}

// The driver takes a snapshot and then fails. The snapshot is found and deleted; until
// then the status of the VolumeSnapshot says what may be left.
func TestSnapshotOfFailedCallIsDeleted(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, fastRetries...)
	var broken atomic.Bool
	broken.Store(true)
	w.Driver.SetHooks(csitest.Hooks{After: func(_ context.Context, m csi.Method, _, resp any, err error) (any, error) {
		if m == csi.CreateSnapshot && broken.Load() {
			return nil, status.Error(codes.Internal, "the array has a problem")
		}
		return resp, err
	}})
	s := w.CreateSnapshot(t, api, "before", "data", nil)
	w.WaitSnapshotError(t, api, "before", "the array has a problem")
	w.DeleteSnapshot(t, api, "before")
	w.WaitSnapshot(t, api, "before", func(said *snapshotv1.VolumeSnapshotStatus) bool {
		return said.Error != nil && strings.Contains(*said.Error.Message, "cannot be deleted yet") && strings.Contains(*said.Error.Message, "snapshot-"+string(s.UID))
	})
	waitForAnotherCall(t, w, csi.CreateSnapshot)
	broken.Store(false)
	w.WaitSnapshotGone(t, api, "before")
	w.WaitNoSnapshotsLeft(t, api)
}

// Only administrators can read contents, so the VolumeSnapshot says too why it is not
// deleted. It stays ready.
func TestSnapshotStatusSaysWhyDeletionFails(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, fastRetries...)
	w.CreateSnapshot(t, api, "before", "data", nil)
	w.WaitSnapshotReady(t, api, "before")
	var used atomic.Bool
	used.Store(true)
	w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, m csi.Method, _ any) error {
		if m == csi.DeleteSnapshot && used.Load() {
			return status.Error(codes.FailedPrecondition, "used by a clone")
		}
		return nil
	}})
	w.DeleteSnapshot(t, api, "before")
	w.WaitSnapshot(t, api, "before", func(said *snapshotv1.VolumeSnapshotStatus) bool {
		return said.Error != nil && strings.Contains(*said.Error.Message, "used by a clone") && *said.ReadyToUse
	})
	used.Store(false)
	w.WaitSnapshotGone(t, api, "before")
	w.WaitNoSnapshotsLeft(t, api)
}

// PowerStore returns the source vol1 for the volume vol1/array7/scsi.
func TestSnapshotSourceInDriversNotationIsAccepted(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, fastRetries...)
	changeResponses(w, csi.CreateSnapshot, func(r *csipb.CreateSnapshotResponse) { r.Snapshot.SourceVolumeId = r.Snapshot.SourceVolumeId[:3] })
	w.CreateSnapshot(t, api, "before", "data", nil)
	w.WaitSnapshotReady(t, api, "before")
	w.DeleteSnapshot(t, api, "before")
	w.WaitSnapshotGone(t, api, "before")
	w.WaitNoSnapshotsLeft(t, api)
}
