package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// snapshotModule has the CRDs of the snapshot API beside its types.
const snapshotModule = "github.com/kubernetes-csi/external-snapshotter/client/v8"

// Snapshots is a client for the snapshot API, whose CRDs it installs. They stay:
// other tests of the cluster may be using them.
func (w *World) Snapshots(t testing.TB) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := snapshotv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(w.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	if err := installSnapshots(t.Context(), c); err != nil {
		t.Fatalf("installing the snapshot API: %v", err)
	}
	Eventually(t, func(ctx context.Context) error {
		return errors.Join(
			c.List(ctx, &snapshotv1.VolumeSnapshotList{}, client.Limit(1)),
			c.List(ctx, &snapshotv1.VolumeSnapshotContentList{}, client.Limit(1)))
	})
	return c
}

func installSnapshots(ctx context.Context, c client.Client) error {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", snapshotModule).Output()
	if err != nil {
		return fmt.Errorf("finding its CRDs: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "snapshot.storage.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("there are no CRDs in %s: %w", out, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, crd); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(crd), client.FieldOwner("tests"), client.ForceOwnership); err != nil {
			return fmt.Errorf("applying %s: %w", file, err)
		}
	}
	return nil
}

// Cut makes a snapshot of a volume at the driver and returns its handle there.
func (w *World) Cut(t testing.TB, name, volumeHandle string) string {
	t.Helper()
	driver, err := csi.Connect(t.Context(), csi.Options{Address: w.Socket})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	if _, err := driver.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	made, err := driver.CreateSnapshot(t.Context(), &csipb.CreateSnapshotRequest{Name: name, SourceVolumeId: volumeHandle})
	if err != nil {
		t.Fatal(err)
	}
	return made.SnapshotId
}

// Describe makes the objects that a snapshot controller would make for a
// snapshot at the driver: ready to be restored from. The content belongs to the
// caller: it is not in the namespace.
func (w *World) Describe(ctx context.Context, api client.Client, name, handle string) (*snapshotv1.VolumeSnapshot, *snapshotv1.VolumeSnapshotContent, error) {
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
		return nil, nil, fmt.Errorf("making snapshot %s: %w", name, err)
	}
	content.Spec.VolumeSnapshotRef.UID = snapshot.UID
	if err := api.Create(ctx, content); err != nil {
		return nil, nil, fmt.Errorf("making the content of snapshot %s: %w", name, err)
	}
	content.Status = &snapshotv1.VolumeSnapshotContentStatus{SnapshotHandle: &handle, ReadyToUse: ptr.To(true)}
	if err := api.Status().Update(ctx, content); err != nil {
		return nil, nil, fmt.Errorf("making the content of snapshot %s ready: %w", name, err)
	}
	snapshot.Status = &snapshotv1.VolumeSnapshotStatus{BoundVolumeSnapshotContentName: &content.Name, ReadyToUse: ptr.To(true)}
	if err := api.Status().Update(ctx, snapshot); err != nil {
		return nil, nil, fmt.Errorf("making snapshot %s ready: %w", name, err)
	}
	return snapshot, content, nil
}
