package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// inNewNamespace returns the same world in another namespace of its own.
func inNewNamespace(t *testing.T, w *world.World) *world.World {
	t.Helper()
	namespaces := w.Client.CoreV1().Namespaces()
	made, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: w.Namespace + "-"}}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() { must(t, namespaces.Delete(context.Background(), made.Name, metav1.DeleteOptions{})) })
	c, there := *w.Cluster, *w
	c.Namespace, there.Cluster = made.Name, &c
	return &there
}

// installingGrants is locked while the CRD of ReferenceGrants is installed.
var installingGrants sync.Mutex

// createGrant allows claims of the world's namespace to use one source in another
// namespace.
func createGrant(t *testing.T, w *world.World, from string, source corev1.TypedLocalObjectReference) {
	t.Helper()
	installingGrants.Lock() // Two tests would create it at the same time.
	localWorld{w}.kubectl(t, "apply", "-f", filepath.Join("testdata", "referencegrants.yaml"))
	installingGrants.Unlock()
	localWorld{w}.kubectl(t, "wait", "--for=condition=Established", "crd/referencegrants.gateway.networking.k8s.io")
	g := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
		"metadata": map[string]any{"namespace": from, "name": source.Name},
		"spec": map[string]any{
			"from": []any{map[string]any{"group": "", "kind": "PersistentVolumeClaim", "namespace": w.Namespace}},
			"to":   []any{map[string]any{"group": *source.APIGroup, "kind": source.Kind, "name": source.Name}},
		},
	}}
	world.Eventually(t, func(ctx context.Context) error { // Its discovery comes a moment after Established.
		api, err := client.New(w.Config, client.Options{})
		if err != nil {
			return err
		}
		return client.IgnoreAlreadyExists(api.Create(ctx, g.DeepCopy()))
	})
}

// A claim may use a source in another namespace once a ReferenceGrant allows it. Until
// then one event says so. The grant requeues the claim, even if its CRD was not
// installed when the provisioner started. Afterwards the source is not protected any
// more.
func TestSourceInAnotherNamespaceNeedsAGrant(t *testing.T) {
	t.Parallel()
	gate := cluster.WithAPIServerArgs("--feature-gates=CrossNamespaceVolumeDataSource=true")
	for kind, group := range map[string]string{"PersistentVolumeClaim": "", "VolumeSnapshot": "snapshot.storage.k8s.io"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := world.New(t, csitest.Options{}, gate)
			there, api := inNewNamespace(t, w), w.SnapshotClient(t)
			// No retry is due for an hour.
			w.StartProvisioner(t, "--retry-interval-start=1h", "--retry-interval-max=1h")
			w.CreateClass(t, nil)
			there.CreateClaim(t, "source", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &w.Namespace })
			original := there.WaitBound(t, "source")
			snapshot := createReadySnapshot(t, there, api, original, "source")

			claim := w.CreateClaim(t, "filled", func(c *corev1.PersistentVolumeClaim) {
				c.Spec.DataSourceRef = &corev1.TypedObjectReference{APIGroup: &group, Kind: kind, Namespace: &there.Namespace, Name: "source"}
			})
			if ref := claim.Spec.DataSourceRef; ref == nil || ref.Namespace == nil {
				t.Fatalf("the API server has dropped the namespace of the reference: %v", ref)
			}
			w.WaitClaimEvent(t, "filled", corev1.EventTypeWarning, "ProvisioningFailed",
				fmt.Sprintf("no ReferenceGrant in namespace %s lets claims of namespace %s use %s %s/source", there.Namespace, w.Namespace, kind, there.Namespace))
			createGrant(t, w, there.Namespace, corev1.TypedLocalObjectReference{APIGroup: &group, Kind: kind, Name: "source"})
			filled := w.WaitBound(t, "filled")
			warnings, err := w.Client.CoreV1().Events(w.Namespace).List(t.Context(), metav1.ListOptions{
				FieldSelector: "reason=ProvisioningFailed,involvedObject.name=filled",
			})
			must(t, err)
			if len(warnings.Items) != 1 || warnings.Items[0].Count > 1 {
				t.Errorf("there is more than one event: %+v", warnings.Items)
			}
			for _, v := range w.Driver.Volumes() {
				if v.ID == filled.Spec.CSI.VolumeHandle && v.SourceID == "" {
					t.Errorf("volume %s has no source", v.ID)
				}
			}

			waitUnprotected(t, api, snapshot)
			there.DeleteClaim(t, "source")
			there.WaitClaimGone(t, "source")
			w.DeleteClaim(t, "filled")
			w.WaitNothingLeft(t)
		})
	}
}
