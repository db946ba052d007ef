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

// This file is about odd answers of drivers, and about what is left of volumes that
// nobody can use.

// An answer that was lost, or came too late, is not taken back by the next one: the
// volume may be there, and stays on record until that is known.
func TestARefusalDoesNotEndWhatAnEarlierCallMayHaveMade(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.Internal, codes.Unknown, codes.AlreadyExists, codes.ResourceExhausted, codes.InvalidArgument, codes.OutOfRange,
		codes.NotFound, codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{})
			w.CreateClass(t, nil)
			var refuse atomic.Bool
			w.Driver.LoseResponse(csi.CreateVolume)
			w.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, m csi.Method, _ any) error {
				if m == csi.CreateVolume && w.Driver.Calls(csi.CreateVolume) > 1 && refuse.Load() {
					return status.Error(code, "not today")
				}
				return nil
			}})
			refuse.Store(true)
			w.StartProvisioner(t, fastRetries...)
			w.CreateClaim(t, "data", nil)
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "not today")
			w.DeleteClaim(t, "data")
			waitForAnotherCall(t, w, csi.CreateVolume)
			refuse.Store(false)
			w.WaitNothingLeft(t)
		})
	}
}

// waitForAnotherCall waits until a method was called again.
func waitForAnotherCall(t *testing.T, w *world.World, method csi.Method) {
	t.Helper()
	w.WaitCalls(t, method, w.Driver.Calls(method)+2) // One may have begun before.
}

// A call that takes too long does its work all the same. Nothing was answered, and
// what comes later is no answer to it.
func TestAVolumeThatIsMadeTooLateIsFound(t *testing.T) {
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

// The first call may have made the volume where it was asked for. Another place is
// not asked under the same name.
func TestAVolumeThatMayBeInAZoneIsNotAskedForInAnother(t *testing.T) {
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
				t.Errorf("the volume was asked for in %v", place)
			}
		}
	}
	w.DeleteClaim(t, "data")
	w.WaitNothingLeft(t)
}

// A PersistentVolume that the API server will not have leaves nothing behind: what
// the driver has made for it is deleted, and the claim says why.
func TestAVolumeThatCannotBePublishedIsGivenBack(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(w *world.World, v *csipb.Volume)
		before func(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim)
		said   string
	}{
		"its place has no name that a label could have": {change: func(_ *world.World, v *csipb.Volume) {
			v.AccessibleTopology = []*csipb.Topology{{Segments: map[string]string{"topology.odd/zone": "Rack 7 / Row B"}}}
		}, said: "Rack 7 / Row B"},
		"its attributes are too large": {change: func(_ *world.World, v *csipb.Volume) {
			v.VolumeContext = map[string]string{"large": strings.Repeat("x", 4<<20)}
		}, said: "creating PersistentVolume"},
		"its name is taken": {before: func(t *testing.T, w *world.World, claim *corev1.PersistentVolumeClaim) {
			w.CreatePV(t, "foreign", func(v *corev1.PersistentVolume) {
				v.Name = "pvc-" + string(claim.UID)
				v.Spec.CSI = nil
				v.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/nowhere"}
			})
		}, said: "another one of that name is there"},
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
					return fmt.Errorf("%d volumes are left at the driver, and %d records", len(left)-others, len(leases.Items))
				}
				return nil
			})
			calls := w.Driver.Calls(csi.CreateVolume)
			w.CreateClaim(t, "other", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = new(string) })
			if now := w.Driver.Calls(csi.CreateVolume); now != calls {
				t.Errorf("the driver was asked %d times more for a volume that nobody wants", now-calls)
			}
		})
	}
}

// A volume that is too small, or may be empty, is deleted; and deleted it is not
// there, so nothing is asked any more for a claim that is gone.
func TestAnAnswerThatCannotBeUsedIsUndone(t *testing.T) {
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
		t.Errorf("%d volumes were made and %d deleted", made, deleted)
	}
}

// The undo of an answer that cannot be used does not delete a volume that somebody
// uses.
func TestAVolumeThatIsPublishedIsNotUndone(t *testing.T) {
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
			err = errors.New("the record stays")
		}
		return err
	})
	if n := w.Driver.Calls(csi.DeleteVolume); n != 0 {
		t.Errorf("DeleteVolume was called %d times, and the volume is in use", n)
	}
}

// Drivers name the content of a volume in their own words: GCE PD is asked for
// projects/P/global/snapshots/S and answers with a number.
func TestContentInTheDriversOwnWordsIsTaken(t *testing.T) {
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
		t.Errorf("the driver was asked %d times for three volumes", n)
	}
}

// What waits for a slow driver is decided when it is sent: an administrator who sets
// Retain meanwhile saves the data.
func TestAVolumeThatIsToBeRetainedMeanwhileIsNotDeleted(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	w.CreateClass(t, nil)
	w.StartProvisioner(t, fastRetries...)
	for _, name := range []string{"first", "second"} {
		w.CreateClaim(t, name, nil)
	}
	first, second := w.WaitBound(t, "first"), w.WaitBound(t, "second")
	w.Driver.FailNext(csi.DeleteVolume, codes.DeadlineExceeded, "slow") // From now on one deletion at a time is sent.
	slow := w.Driver.Block(csi.DeleteVolume)
	w.DeleteClaim(t, "first")
	<-slow.Arrived()
	w.DeleteClaim(t, "second")
	w.WaitPVPhase(t, second.Name, corev1.VolumeReleased)
	// A third one, made meanwhile, shows that the release of the second was seen.
	w.CreateClaim(t, "third", nil)
	w.WaitBound(t, "third")
	w.SetReclaimPolicy(t, second.Name, corev1.PersistentVolumeReclaimRetain)
	slow.Release()
	w.WaitPVGone(t, first)
	w.DeleteClaim(t, "third")
	world.Eventually(t, func(ctx context.Context) error {
		v, err := w.Client.CoreV1().PersistentVolumes().Get(ctx, second.Name, metav1.GetOptions{})
		if err == nil && len(v.Finalizers) > 1 {
			err = fmt.Errorf("it still has the finalizers %q", v.Finalizers)
		}
		if left := w.Driver.Volumes(); err == nil && len(left) != 1 {
			err = fmt.Errorf("the driver has %d volumes", len(left))
		}
		return err
	})
	if left := w.Driver.Volumes()[0].ID; left != second.Spec.CSI.VolumeHandle {
		t.Errorf("left is %s", left)
	}
}

// A volume that was freed by hand, while its deletion failed, is nobody's. It goes
// when its object is deleted, by its policy.
func TestAVolumeThatWasFreedByHandGoesWhenItIsDeleted(t *testing.T) {
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

// A claim that waits for its first consumer is older than the deletion of the snapshot
// that it is to be restored from: it is served. A younger one is not.
func TestADeletedSnapshotServesTheClaimsThatWereMadeBefore(t *testing.T) {
	t.Parallel()
	w := &capacityWorld{world.New(t, csitest.Options{Segments: []map[string]string{{zoneKey: "a"}}})}
	api := w.SnapshotClient(t)
	w.addNode(t, "a")
	w.createDelayedClass(t, "")
	w.StartProvisioner(t, fastRetries...)
	w.createClaimInZone(t, "source", "a", "1Gi")
	snapshot := createReadySnapshot(t, w.World, api, w.WaitBound(t, "source"), "before")
	snapshot.Finalizers = []string{"example.com/snapshot-controller"} // That waits for the claim.
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

// Upstream's csi-provisioner keeps no record of what it restores. Whoever takes its
// place leaves a snapshot protected that a claim waits for.
func TestATakeoverLeavesWhatAClaimWaitsFor(t *testing.T) {
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
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}} // Ours does not even begin.
	})
	w.StartProvisioner(t, fastRetries...)
	waitUnprotected(t, api, idle)
	if !isProtected(t, api, waited) {
		t.Error("the snapshot that a claim is being restored from is not protected any more")
	}
	w.DeleteClaim(t, "restored")
}

// A snapshot that the driver has made before it failed is found and deleted, and until
// then the VolumeSnapshot says what may be left.
func TestASnapshotThatWasMadeByAFailedCallIsDeleted(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, fastRetries...)
	var broken atomic.Bool
	broken.Store(true)
	w.Driver.SetHooks(csitest.Hooks{After: func(_ context.Context, m csi.Method, _, resp any, err error) (any, error) {
		if m == csi.CreateSnapshot && broken.Load() {
			return nil, status.Error(codes.Internal, "the array has lost its voice")
		}
		return resp, err
	}})
	s := w.CreateSnapshot(t, api, "before", "data", nil)
	w.WaitSnapshotError(t, api, "before", "lost its voice")
	w.DeleteSnapshot(t, api, "before")
	w.WaitSnapshot(t, api, "before", func(said *snapshotv1.VolumeSnapshotStatus) bool {
		return said.Error != nil && strings.Contains(*said.Error.Message, "cannot be deleted yet") && strings.Contains(*said.Error.Message, "snapshot-"+string(s.UID))
	})
	waitForAnotherCall(t, w, csi.CreateSnapshot)
	broken.Store(false)
	w.WaitSnapshotGone(t, api, "before")
	w.WaitNoSnapshotsLeft(t, api)
}

// Nobody but administrators can read contents. Why a snapshot is not deleted is on the
// VolumeSnapshot too, which stays ready.
func TestWhyASnapshotIsNotDeletedIsOnTheSnapshot(t *testing.T) {
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

// PowerStore answers vol1 for the volume vol1/array7/scsi.
func TestASnapshotOfAVolumeInTheDriversOwnWordsIsTaken(t *testing.T) {
	t.Parallel()
	w, api := newSnapshotWorld(t, csitest.Options{}, fastRetries...)
	changeResponses(w, csi.CreateSnapshot, func(r *csipb.CreateSnapshotResponse) { r.Snapshot.SourceVolumeId = r.Snapshot.SourceVolumeId[:3] })
	w.CreateSnapshot(t, api, "before", "data", nil)
	w.WaitSnapshotReady(t, api, "before")
	w.DeleteSnapshot(t, api, "before")
	w.WaitSnapshotGone(t, api, "before")
	w.WaitNoSnapshotsLeft(t, api)
}
