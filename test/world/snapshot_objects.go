package world

import (
	"context"
	"errors"
	"fmt"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// SnapshotClient installs the snapshot CRDs, and returns a client for VolumeSnapshots
// and VolumeGroupSnapshots.
func (w *World) SnapshotClient(t testing.TB) client.Client {
	t.Helper()
	InstallCRDs(t, w.Config)
	scheme := runtime.NewScheme()
	if err := errors.Join(snapshotv1.AddToScheme(scheme), groupv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(w.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// CreateSnapshotAtDriver creates a snapshot of a volume at the driver only, and
// returns its handle.
func (w *World) CreateSnapshotAtDriver(t testing.TB, name, volumeHandle string) string {
	t.Helper()
	made, err := w.ConnectDriver(t).CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: name, SourceVolumeId: volumeHandle})
	if err != nil {
		t.Fatal(err)
	}
	return made.SnapshotId
}

// CreateSnapshotObjects creates the ready VolumeSnapshot and VolumeSnapshotContent of
// a snapshot that exists at the driver, as a snapshot-controller would. The caller
// must delete the content, which is not in the namespace.
func (w *World) CreateSnapshotObjects(ctx context.Context, api client.Client, name, handle string) (*snapshotv1.VolumeSnapshot, *snapshotv1.VolumeSnapshotContent, error) {
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace + "-" + name},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			Driver: w.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentRetain,
			Source:            snapshotv1.VolumeSnapshotContentSource{SnapshotHandle: &handle},
			VolumeSnapshotRef: corev1.ObjectReference{Namespace: w.Namespace, Name: name},
			SourceVolumeMode:  ptr.To(corev1.PersistentVolumeFilesystem),
		},
	}
	snapshot := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec:       snapshotv1.VolumeSnapshotSpec{Source: snapshotv1.VolumeSnapshotSource{VolumeSnapshotContentName: &content.Name}},
	}
	if err := api.Create(ctx, snapshot); err != nil {
		return nil, nil, fmt.Errorf("creating snapshot %s: %w", name, err)
	}
	content.Spec.VolumeSnapshotRef.UID = snapshot.UID
	if err := api.Create(ctx, content); err != nil {
		return nil, nil, fmt.Errorf("creating the content of snapshot %s: %w", name, err)
	}
	before := content.DeepCopy()
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle, ReadyToUse: ptr.To(true)}
	if err := api.Status().Patch(ctx, content, client.MergeFrom(before)); err != nil { // A csi-snapshotter may have written to it.
		return nil, nil, fmt.Errorf("making the content of snapshot %s ready: %w", name, err)
	}
	snapshot.Status = &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: &content.Name, ReadyToUse: ptr.To(true)}
	if err := api.Status().Update(ctx, snapshot); err != nil {
		return nil, nil, fmt.Errorf("making snapshot %s ready: %w", name, err)
	}
	return snapshot, content, nil
}
