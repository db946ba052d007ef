package crash

import (
	"context"
	"errors"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// cleanUp deletes everything that a failed run has left, so that the next one starts
// clean, and the nodes at the end. No process may be running.
func (s *environment) cleanUp(ctx context.Context, t testing.TB) {
	t.Helper()
	s.Driver.SetHooks(csitest.Hooks{})
	defer s.Driver.SetHooks(csitest.Hooks{Before: s.beforeCall, After: s.afterCall})
	there := &clusterState{environment: s}
	if err := there.read(ctx, &run{environment: s}); err != nil {
		t.Error(err)
		return
	}
	none := metav1.DeleteOptions{}
	drop := func(what string, err error) {
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("removing %s: %v", what, err)
		}
	}
	for i := range there.claims {
		drop("a claim", s.Client.CoreV1().PersistentVolumeClaims(s.Namespace).Delete(ctx, there.claims[i].Name, none))
	}
	for i := range there.pendingOperations {
		drop("a pending operation", s.Client.CoordinationV1().Leases(s.Namespace).Delete(ctx, there.pendingOperations[i].Name, none))
	}
	for i := range there.volumes {
		s.ForceDeletePV(ctx, t, there.volumes[i].Name)
	}
	for i := range there.attachments {
		s.ForceDeleteAttachment(ctx, t, there.attachments[i].Name)
	}
	drop("snapshots", errors.Join(s.cleanUpSnapshots(ctx, there)...))
	for i := range there.snapshots {
		drop("a snapshot", s.forceDeleteSnapshot(ctx, &there.snapshots[i]))
	}
	for _, zone := range zones {
		if s.scenario.hasNodes() {
			drop("a node", s.Client.CoreV1().Nodes().Delete(ctx, s.node(zone), none))
			drop("a CSINode", s.Client.StorageV1().CSINodes().Delete(ctx, s.node(zone), none))
		}
	}
	s.cleanUpDriver(ctx, t)
}

func (s *environment) cleanUpDriver(ctx context.Context, t testing.TB) {
	t.Helper()
	left, snapshots := s.Driver.Volumes(), s.Driver.Snapshots()
	if len(left)+len(snapshots) == 0 {
		return
	}
	driver, err := csi.Connect(ctx, csi.Options{Address: s.Socket})
	if err != nil {
		t.Error(err)
		return
	}
	defer driver.Close()
	for _, g := range s.Driver.Groups() {
		if err := driver.WithPrecondition(csi.Unconditional).DeleteVolumeGroupSnapshot(ctx, &csipb.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: g.ID, SnapshotIds: g.MemberIDs}); err != nil {
			t.Error(err)
		}
	}
	for _, c := range snapshots {
		if c.ID == s.snapshot || c.GroupID != "" {
			continue
		}
		if err := driver.WithPrecondition(csi.Unconditional).DeleteSnapshot(ctx, &csipb.DeleteSnapshotRequest{SnapshotId: c.ID}); err != nil {
			t.Error(err)
		}
	}
	for _, v := range left {
		for _, node := range v.Nodes {
			if err := driver.WithPrecondition(csi.Unconditional).ControllerUnpublishVolume(ctx, &csipb.ControllerUnpublishVolumeRequest{VolumeId: v.ID, NodeId: node}); err != nil {
				t.Error(err)
			}
		}
		if err := driver.WithPrecondition(csi.Unconditional).DeleteVolume(ctx, &csipb.DeleteVolumeRequest{VolumeId: v.ID}); err != nil {
			t.Error(err)
		}
	}
}
