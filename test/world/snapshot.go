package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// StartSnapshotter starts role csi-snapshotter for the world's driver; see
// [World.StartProvisioner].
func (w *World) StartSnapshotter(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "csi-snapshotter", w.SnapshotterArgs(args...))
}

// StartSnapshotterOnNode starts role csi-snapshotter with --node-deployment for a
// node.
func (w *World) StartSnapshotterOnNode(t testing.TB, node string, args ...string) *Process {
	t.Helper()
	return startForTest(t, []string{"NODE_NAME=" + node}, "csi-snapshotter", w.SnapshotterArgs(append(args, "--node-deployment")...))
}

// SnapshotterArgs returns the arguments with which csi-snapshotter uses the world's
// driver, followed by args.
func (w *World) SnapshotterArgs(args ...string) []string {
	return append([]string{"--kubeconfig=" + w.Kubeconfig, "--csi-address=" + w.Socket}, args...)
}

// StartSnapshotController starts role snapshot-controller for the world's namespace;
// see [World.StartProvisioner].
func (w *World) StartSnapshotController(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "snapshot-controller", w.SnapshotControllerArgs(args...))
}

// StartSnapshotControllerForAll starts role snapshot-controller for all namespaces, as
// users do. It needs a cluster of the test's own.
func (w *World) StartSnapshotControllerForAll(t testing.TB, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "snapshot-controller", append([]string{"--kubeconfig=" + w.Kubeconfig}, args...))
}

// SnapshotControllerArgs returns the arguments with which snapshot-controller works on
// the world's namespace only, followed by args.
func (w *World) SnapshotControllerArgs(args ...string) []string {
	return append([]string{"--kubeconfig=" + w.Kubeconfig, "--watch-namespace=" + w.Namespace}, args...)
}

// CreateSnapshotClass creates a VolumeSnapshotClass of the driver, with the
// namespace's name and policy Delete. It is deleted when the test ends.
func (w *World) CreateSnapshotClass(t testing.TB, api client.Client, change func(*snapshotv1.VolumeSnapshotClass)) *snapshotv1.VolumeSnapshotClass {
	t.Helper()
	class := &snapshotv1.VolumeSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, Driver: w.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
	}
	if change != nil {
		change(class)
	}
	createForTest(t, api, class)
	return class
}

// CreateSnapshot creates a VolumeSnapshot of a claim, with the class of the
// namespace's name.
func (w *World) CreateSnapshot(t testing.TB, api client.Client, name, claim string, change func(*snapshotv1.VolumeSnapshot)) *snapshotv1.VolumeSnapshot {
	t.Helper()
	s := &snapshotv1.VolumeSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec: snapshotv1.VolumeSnapshotSpec{
			VolumeSnapshotClassName: ptr.To(w.Namespace),
			Source:                  snapshotv1.VolumeSnapshotSource{PersistentVolumeClaimName: &claim},
		},
	}
	if change != nil {
		change(s)
	}
	if err := api.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return s
}

// WaitSnapshotReady waits until a VolumeSnapshot is ready to use.
func (w *World) WaitSnapshotReady(t testing.TB, api client.Client, name string) *snapshotv1.VolumeSnapshot {
	t.Helper()
	return w.WaitSnapshot(t, api, name, func(s *snapshotv1.VolumeSnapshotStatus) bool { return ptr.Deref(s.ReadyToUse, false) })
}

// WaitSnapshotError waits until the status of a VolumeSnapshot has an error that
// contains part, and says that the snapshot is not ready.
func (w *World) WaitSnapshotError(t testing.TB, api client.Client, name, part string) *snapshotv1.VolumeSnapshot {
	t.Helper()
	return w.WaitSnapshot(t, api, name, func(s *snapshotv1.VolumeSnapshotStatus) bool {
		return s.Error != nil && strings.Contains(ptr.Deref(s.Error.Message, ""), part) && !ptr.Deref(s.ReadyToUse, true)
	})
}

// WaitSnapshot waits until a VolumeSnapshot has a status that passes check, and
// returns the snapshot.
func (w *World) WaitSnapshot(t testing.TB, api client.Client, name string, check func(*snapshotv1.VolumeSnapshotStatus) bool) *snapshotv1.VolumeSnapshot {
	t.Helper()
	s := &snapshotv1.VolumeSnapshot{}
	Eventually(t, func(ctx context.Context) error {
		s = &snapshotv1.VolumeSnapshot{}
		if err := api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: name}, s); err != nil {
			return err
		}
		if s.Status == nil || !check(s.Status) {
			text, err := json.Marshal(s.Status)
			return errors.Join(err, fmt.Errorf("snapshot %s has the status %s", name, text))
		}
		return nil
	})
	return s
}

// WaitContent waits for the VolumeSnapshotContent of a snapshot whose source is a
// claim.
func (w *World) WaitContent(t testing.TB, api client.Client, of *snapshotv1.VolumeSnapshot) *snapshotv1.VolumeSnapshotContent {
	t.Helper()
	c := &snapshotv1.VolumeSnapshotContent{}
	Eventually(t, func(ctx context.Context) error {
		return api.Get(ctx, client.ObjectKey{Name: "snapcontent-" + string(of.UID)}, c)
	})
	return c
}

// DeleteSnapshot deletes a VolumeSnapshot without waiting until it is gone.
func (w *World) DeleteSnapshot(t testing.TB, api client.Client, name string) {
	t.Helper()
	err := api.Delete(t.Context(), &snapshotv1.VolumeSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name}})
	if err != nil {
		t.Fatal(err)
	}
}

// WaitSnapshotGone waits until a VolumeSnapshot is gone.
func (w *World) WaitSnapshotGone(t testing.TB, api client.Client, name string) {
	t.Helper()
	Eventually(t, func(ctx context.Context) error {
		s := &snapshotv1.VolumeSnapshot{}
		err := api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: name}, s)
		if err != nil {
			return client.IgnoreNotFound(err)
		}
		return fmt.Errorf("snapshot %s still exists, with the finalizers %q", name, s.Finalizers)
	})
}

// ListContents returns the VolumeSnapshotContents of the world's driver.
func (w *World) ListContents(ctx context.Context, api client.Client) ([]snapshotv1.VolumeSnapshotContent, error) {
	all := &snapshotv1.VolumeSnapshotContentList{}
	if err := api.List(ctx, all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Items, func(c snapshotv1.VolumeSnapshotContent) bool { return c.Spec.Driver != w.Name }), nil
}

// WaitNoSnapshotsLeft waits until neither the world's driver nor the cluster has
// snapshots or their contents, and no claim is protected for one.
func (w *World) WaitNoSnapshotsLeft(t testing.TB, api client.Client) {
	t.Helper()
	Eventually(t, func(ctx context.Context) error {
		contents, err := w.ListContents(ctx, api)
		if err != nil {
			return err
		}
		left := &snapshotv1.VolumeSnapshotList{}
		if err := api.List(ctx, left, client.InNamespace(w.Namespace)); err != nil {
			return err
		}
		if there := w.Driver.Snapshots(); len(there)+len(contents)+len(left.Items) > 0 {
			return fmt.Errorf("left are %d snapshots at the driver, %d contents and %d VolumeSnapshots", len(there), len(contents), len(left.Items))
		}
		claims, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, claim := range claims.Items {
			if slices.Contains(claim.Finalizers, "snapshot.storage.kubernetes.io/pvc-as-source-protection") {
				return fmt.Errorf("claim %s is still protected for a snapshot", claim.Name)
			}
		}
		return nil
	})
}
