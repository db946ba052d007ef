package world

import (
	"context"
	"fmt"
	"slices"
	"testing"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// CreateGroupClass creates a VolumeGroupSnapshotClass of the driver, with the
// namespace's name and policy Delete. It is deleted when the test ends.
func (w *World) CreateGroupClass(t testing.TB, api client.Client, change func(*groupv1.VolumeGroupSnapshotClass)) *groupv1.VolumeGroupSnapshotClass {
	t.Helper()
	class := &groupv1.VolumeGroupSnapshotClass{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace}, Driver: w.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
	}
	if change != nil {
		change(class)
	}
	createForTest(t, api, class)
	return class
}

// CreateGroup creates a VolumeGroupSnapshot of the claims that a selector matches,
// with the class of the namespace's name.
func (w *World) CreateGroup(t testing.TB, api client.Client, name string, selector metav1.LabelSelector, change func(*groupv1.VolumeGroupSnapshot)) *groupv1.VolumeGroupSnapshot {
	t.Helper()
	group := &groupv1.VolumeGroupSnapshot{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name},
		Spec: groupv1.VolumeGroupSnapshotSpec{
			VolumeGroupSnapshotClassName: ptr.To(w.Namespace),
			Source:                       groupv1.VolumeGroupSnapshotSource{Selector: &selector},
		},
	}
	if change != nil {
		change(group)
	}
	if err := api.Create(t.Context(), group); err != nil {
		t.Fatal(err)
	}
	return group
}

// WaitGroup waits until the status of a VolumeGroupSnapshot passes check, and returns
// the group.
func (w *World) WaitGroup(t testing.TB, api client.Client, name string, check func(*groupv1.VolumeGroupSnapshotStatus) error) *groupv1.VolumeGroupSnapshot {
	t.Helper()
	group := &groupv1.VolumeGroupSnapshot{}
	Eventually(t, func(ctx context.Context) error {
		if err := api.Get(ctx, client.ObjectKey{Namespace: w.Namespace, Name: name}, group); err != nil {
			return err
		}
		if group.Status == nil {
			return fmt.Errorf("group snapshot %s has no status", name)
		}
		return check(group.Status)
	})
	return group
}

// WaitGroupReady waits until a VolumeGroupSnapshot is ready to use.
func (w *World) WaitGroupReady(t testing.TB, api client.Client, name string) *groupv1.VolumeGroupSnapshot {
	t.Helper()
	return w.WaitGroup(t, api, name, func(s *groupv1.VolumeGroupSnapshotStatus) error {
		if !ptr.Deref(s.ReadyToUse, false) {
			return fmt.Errorf("group snapshot %s has the status %+v", name, s)
		}
		return nil
	})
}

// ListMembers returns the VolumeSnapshots of a group, by their source claims.
func (w *World) ListMembers(t testing.TB, api client.Client, group *groupv1.VolumeGroupSnapshot) map[string]snapshotv1.VolumeSnapshot {
	t.Helper()
	all := &snapshotv1.VolumeSnapshotList{}
	if err := api.List(t.Context(), all, client.InNamespace(w.Namespace)); err != nil {
		t.Fatal(err)
	}
	members := map[string]snapshotv1.VolumeSnapshot{}
	for _, s := range all.Items {
		if slices.ContainsFunc(s.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == group.UID }) {
			members[ptr.Deref(s.Spec.Source.PersistentVolumeClaimName, s.Name)] = s
		}
	}
	return members
}

// DeleteGroup deletes a VolumeGroupSnapshot without waiting until it is gone.
func (w *World) DeleteGroup(t testing.TB, api client.Client, name string) {
	t.Helper()
	err := api.Delete(t.Context(), &groupv1.VolumeGroupSnapshot{ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name}})
	if err != nil {
		t.Fatal(err)
	}
}

// ListGroupContents returns the VolumeGroupSnapshotContents of the world's driver.
func (w *World) ListGroupContents(ctx context.Context, api client.Client) ([]groupv1.VolumeGroupSnapshotContent, error) {
	all := &groupv1.VolumeGroupSnapshotContentList{}
	if err := api.List(ctx, all); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all.Items, func(c groupv1.VolumeGroupSnapshotContent) bool { return c.Spec.Driver != w.Name }), nil
}

// WaitNoGroupsLeft waits until neither the world's driver nor the cluster has groups,
// their contents or members.
func (w *World) WaitNoGroupsLeft(t testing.TB, api client.Client) {
	t.Helper()
	Eventually(t, func(ctx context.Context) error {
		contents, err := w.ListGroupContents(ctx, api)
		if err != nil {
			return err
		}
		left := &groupv1.VolumeGroupSnapshotList{}
		if err := api.List(ctx, left, client.InNamespace(w.Namespace)); err != nil {
			return err
		}
		if there := w.Driver.Groups(); len(there)+len(contents)+len(left.Items) > 0 {
			return fmt.Errorf("left are %d groups at the driver, %d contents and %d VolumeGroupSnapshots", len(there), len(contents), len(left.Items))
		}
		return nil
	})
	w.WaitNoSnapshotsLeft(t, api)
}
