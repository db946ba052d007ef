package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/internal/groupsnapshot"
	"github.com/holdfast-io/holdfast/test/world"
)

// groupClient is a client for an API server that serves groups in a version.
func groupClient(t *testing.T, w *world.World, version string) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	v := groupsnapshot.Version{GroupVersion: schema.GroupVersion{Group: groupv1.GroupName, Version: version}}
	must(t, errors.Join(corev1.AddToScheme(scheme), snapshotv1.AddToScheme(scheme), v.AddToScheme(scheme)))
	api, err := client.New(w.Config, client.Options{Scheme: scheme})
	must(t, err)
	return api
}

// createBoundClaim creates a volume at the driver, and the claim and PersistentVolume
// that Kubernetes' controllers would leave.
func createBoundClaim(t *testing.T, w *world.World, api client.Client) {
	t.Helper()
	handle := w.CreateVolumeAtDriver(t, "data")
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: "data", Labels: shop.MatchLabels},
		Spec: corev1.PersistentVolumeClaimSpec{
			VolumeName: w.Namespace, AccessModes: modes, StorageClassName: ptr.To(""), Resources: corev1.VolumeResourceRequirements{Requests: size},
		},
	}
	must(t, api.Create(t.Context(), claim))
	claim.Status.Phase = corev1.ClaimBound
	must(t, api.Status().Update(t.Context(), claim))
	must(t, api.Create(t.Context(), &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: w.Namespace},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: modes,
			ClaimRef: &corev1.ObjectReference{Namespace: w.Namespace, Name: "data", UID: claim.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: w.Name, VolumeHandle: handle},
			},
		},
	}))
}

func isGroup(crd *unstructured.Unstructured) bool {
	return strings.Contains(crd.GetName(), "."+groupv1.GroupName)
}

// withoutV1 removes v1 from the CRDs of groups, as in releases before v1.
func withoutV1(crd *unstructured.Unstructured) bool {
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil || !isGroup(crd) {
		return err == nil
	}
	var left []any
	for _, version := range versions {
		if v, ok := version.(map[string]any); ok && v["name"] != "v1" {
			left = append(left, v)
		}
	}
	return unstructured.SetNestedSlice(crd.Object, left, "spec", "versions") == nil
}

// Without the group CRDs both roles work on single snapshots; they start with groups
// when the CRDs appear. No garbage collector runs on this API server, so they must
// leave nothing to it.
func TestGroupsAreServedInAnyVersionOnceInstalled(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		version string
		late    bool
		change  func(*unstructured.Unstructured) bool
	}{
		"the CRDs are installed later": {"v1", true, func(*unstructured.Unstructured) bool { return true }},
		"only v1beta2 is served":       {"v1beta2", false, withoutV1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.NewAPIOnly(t, csitest.Options{})
			singles := func(crd *unstructured.Unstructured) bool {
				return strings.HasSuffix(crd.GetName(), "."+snapshotv1.GroupName)
			}
			world.InstallCRDs(t, w.Config, singles)
			if !row.late {
				world.InstallCRDs(t, w.Config, row.change)
			}
			roles := []*world.Process{w.StartSnapshotController(t, "--retry-crd-interval-max=1s"), w.StartSnapshotter(t)}
			api := groupClient(t, w, row.version)
			createBoundClaim(t, w, api)
			w.CreateSnapshotClass(t, api, nil)
			w.CreateSnapshot(t, api, "single", "data", nil)
			w.WaitSnapshotReady(t, api, "single")
			for _, role := range roles {
				if n := strings.Count(role.Log(), "Continuing without an API until it can be listed: apply its CRDs"); n != 0 != row.late || n > 1 {
					t.Errorf("it logged %d times that groups are not installed", n)
				}
			}
			world.InstallCRDs(t, w.Config, row.change)
			w.CreateGroupClass(t, api, nil)
			w.CreateGroup(t, api, "one", shop, nil)
			members := w.ListMembers(t, api, w.WaitGroupReady(t, api, "one"))
			owner := members["data"].OwnerReferences
			if len(members) != 1 || owner[0].APIVersion != groupv1.GroupName+"/"+row.version {
				t.Errorf("the members are %+v", members)
			}
			w.DeleteSnapshot(t, api, "single")
			w.DeleteGroup(t, api, "one")
			w.WaitNoGroupsLeft(t, api)
		})
	}
}

// If groups are disabled, or the driver does not support them, the roles work on
// single snapshots only.
func TestGroupsCanBeDisabled(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args  []string
		group []csipb.GroupControllerServiceCapability_RPC_Type // nil for all
		says  string
	}{
		"by the feature gate":                {[]string{"--feature-gates=CSIVolumeGroupSnapshot=false"}, nil, ""},
		"by a driver without the capability": {nil, []csipb.GroupControllerServiceCapability_RPC_Type{}, "The driver does not support group snapshots"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := world.NewAPIOnly(t, csitest.Options{})
			w.Driver.Reconfigure(func(o *csitest.Options) { o.Group = row.group })
			world.InstallCRDs(t, w.Config)
			w.StartSnapshotController(t, row.args...)
			snapshotter := w.StartSnapshotter(t, row.args...)
			api := groupClient(t, w, "v1")
			createBoundClaim(t, w, api)
			w.CreateGroupClass(t, api, nil)
			group := w.CreateGroup(t, api, "one", shop, nil)
			w.CreateSnapshotClass(t, api, nil)
			w.CreateSnapshot(t, api, "single", "data", nil)
			w.WaitSnapshotReady(t, api, "single")
			must(t, api.Get(t.Context(), client.ObjectKeyFromObject(group), group))
			if n := w.Driver.Calls(csi.CreateVolumeGroupSnapshot); n != 0 || row.args != nil && (group.Status != nil || len(group.Finalizers) > 0) {
				t.Errorf("the driver was called %d times for a group, which is %+v", n, group)
			}
			if row.args == nil { // The snapshot-controller does not know the capability; it reports what it observes.
				w.WaitEvent(t, "VolumeGroupSnapshot/one", corev1.EventTypeWarning, "GroupSnapshotNotServed", "does the driver make them?")
			}
			if !strings.Contains(snapshotter.Log(), row.says) {
				t.Errorf("the log lacks %q", row.says)
			}
			w.DeleteSnapshot(t, api, "single")
			world.Eventually(t, func(context.Context) error {
				if left := w.Driver.Snapshots(); len(left) > 0 {
					return fmt.Errorf("left are %+v", left)
				}
				return nil
			})
		})
	}
}
