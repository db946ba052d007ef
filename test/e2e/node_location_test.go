package e2e

import (
	"context"
	"errors"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

type capabilities = []csipb.ControllerServiceCapability_RPC_Type

const (
	getVolume   = csipb.ControllerServiceCapability_RPC_GET_VOLUME
	listVolumes = csipb.ControllerServiceCapability_RPC_LIST_VOLUMES
)

// setCapabilities limits what the drivers announce to creating and deleting volumes,
// and these.
func (w *nodeWorld) setCapabilities(also ...csipb.ControllerServiceCapability_RPC_Type) {
	for _, n := range w.nodes {
		n.Driver.Reconfigure(func(o *csitest.Options) {
			o.Controller = append(capabilities{csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME}, also...)
		})
	}
}

// createVolumeByHand creates a volume at node b's driver, with a handle that node a's
// driver does not have, and binds a claim to a PersistentVolume that an administrator
// wrote for it.
func (w *nodeWorld) createVolumeByHand(t *testing.T, change func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	t.Helper()
	w.nodes[1].CreateVolumeAtDriver(t, "other")
	volume := handWrittenPV(w.World, w.nodes[1].CreateVolumeAtDriver(t, "data"))
	if change != nil {
		change(volume)
	}
	made, err := w.Client.CoreV1().PersistentVolumes().Create(t.Context(), volume, metav1.CreateOptions{})
	must(t, err)
	w.CreateClass(t, nil)
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = made.Name })
	w.WaitBound(t, "data")
	return made
}

// waitSingleWarning waits until a volume has an event with part, and checks that it is
// the only warning.
func (w *nodeWorld) waitSingleWarning(t *testing.T, volume *corev1.PersistentVolume, part string) {
	t.Helper()
	w.WaitEvent(t, "PersistentVolume/"+volume.Name, corev1.EventTypeWarning, "VolumeFailedDelete", part)
	events, err := w.Client.CoreV1().Events(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{
		FieldSelector: "type=Warning,involvedObject.name=" + volume.Name,
	})
	must(t, err)
	if len(events.Items) != 1 {
		t.Errorf("it has %d events, want one for all nodes", len(events.Items))
	}
}

// checkDeleteCalls checks the number of DeleteVolume calls of each node's driver.
func (w *nodeWorld) checkDeleteCalls(t *testing.T, want ...int) {
	t.Helper()
	if diff := cmp.Diff(want, w.callsPerNode(csi.DeleteVolume)); diff != "" {
		t.Error(diff)
	}
}

// A driver need not return a topology. The volume is on the node whose driver created
// it.
func TestVolumeHasAffinityOfItsNode(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	for _, n := range w.nodes {
		n.Driver.SetHooks(csitest.Hooks{After: func(_ context.Context, _ csi.Method, _, resp any, err error) (any, error) {
			if response, ok := resp.(*csipb.CreateVolumeResponse); ok {
				response.Volume.AccessibleTopology = nil
			}
			return resp, err
		}})
	}
	w.startProvisioners(t)
	w.createDelayedClass(t)
	w.CreateClaim(t, "data", withSelectedNode("b"))
	if home := w.nodeOf(t, w.WaitBound(t, "data")); home != "b" {
		t.Errorf("it is on node %s", home)
	}
	w.DeleteClaim(t, "data")
	w.waitNothingLeft(t)
	w.checkDeleteCalls(t, 0, 1)
}

// A PersistentVolume that an administrator wrote may not say on which node the volume
// is. The node whose driver finds it deletes it, whatever the outcome of the call.
func TestVolumeWithoutNodeIsDeletedWhereItIs(t *testing.T) {
	hostname := func(v *corev1.PersistentVolume) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "kubernetes.io/hostname", Operator: corev1.NodeSelectorOpIn, Values: []string{"b.example.com"}}},
		}}}}
	}
	both := func(v *corev1.PersistentVolume) {
		hostname(v)
		v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0] = corev1.NodeSelectorRequirement{
			Key: world.NodeKey, Operator: corev1.NodeSelectorOpIn, Values: []string{"a", "b"},
		}
	}
	for name, tt := range map[string]struct {
		can    capabilities
		change func(*corev1.PersistentVolume)
	}{
		"it has no affinity":                               {can: capabilities{getVolume, listVolumes}},
		"it has none, and the driver can only list":        {can: capabilities{listVolumes}},
		"its affinity is about labels not of the driver's": {can: capabilities{getVolume}, change: hostname},
		"its affinity names both nodes":                    {can: capabilities{getVolume}, change: both},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNodeWorld(t, "a", "b")
			w.setCapabilities(tt.can...)
			w.nodes[0].StartProvisioner(t, fastNodeRetries...)
			volume := w.createVolumeByHand(t, tt.change)
			w.DeleteClaim(t, "data")
			// Node b is down. In the end an event says so, and nobody else deletes the volume.
			w.waitSingleWarning(t, volume, "no node's driver has found it")
			w.nodes[1].Driver.LoseResponse(csi.DeleteVolume)
			w.nodes[1].StartProvisioner(t, fastNodeRetries...)
			w.WaitPVGone(t, volume)
			w.checkDeleteCalls(t, 0, 2)
			if n := len(w.nodes[1].Driver.Volumes()); n != 1 {
				t.Errorf("node b has %d volumes, want the other one", n)
			}
		})
	}
}

// If no driver can locate a volume, nobody guesses. An administrator may name the
// node.
func TestVolumeThatCannotBeLocatedStays(t *testing.T) {
	annotate := func(t *testing.T, w *nodeWorld, volume *corev1.PersistentVolume) {
		t.Helper()
		patch := []byte(`{"metadata":{"annotations":{"reclaim.holdfast.io/node":"b"}}}`)
		_, err := w.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		must(t, err)
	}
	affine := func(t *testing.T, w *nodeWorld, volume *corev1.PersistentVolume) {
		t.Helper()
		patch := []byte(`{"spec":{"nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"` + world.NodeKey + `","operator":"In","values":["b"]}]}]}}}}`)
		_, err := w.Client.CoreV1().PersistentVolumes().Patch(t.Context(), volume.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		must(t, err)
	}
	retain := func(t *testing.T, w *nodeWorld, volume *corev1.PersistentVolume) {
		t.Helper()
		w.SetReclaimPolicy(t, volume.Name, corev1.PersistentVolumeReclaimRetain)
		must(t, w.Client.CoreV1().PersistentVolumes().Delete(t.Context(), volume.Name, metav1.DeleteOptions{}))
	}
	for name, tt := range map[string]struct {
		wayOut func(*testing.T, *nodeWorld, *corev1.PersistentVolume)
		calls  []int
		left   int // at node b
	}{
		"until an administrator names the node":            {annotate, []int{0, 1}, 1},
		"until an administrator gives it the affinity":     {affine, []int{0, 1}, 1},
		"until an administrator retains and so deletes it": {retain, []int{0, 0}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNodeWorld(t, "a", "b")
			w.setCapabilities()
			w.startProvisioners(t)
			volume := w.createVolumeByHand(t, nil)
			w.DeleteClaim(t, "data")
			w.waitSingleWarning(t, volume, "nobody can tell which node has it")
			w.CreateClaim(t, "later", nil)
			w.WaitBound(t, "later")
			w.checkDeleteCalls(t, 0, 0)
			w.DeleteClaim(t, "later")
			world.Eventually(t, func(context.Context) error {
				if n := w.nodes[0].Driver.Calls(csi.DeleteVolume) + w.nodes[1].Driver.Calls(csi.DeleteVolume); n == 0 {
					return errors.New("the other claim's volume still exists")
				}
				return nil
			})
			before := w.callsPerNode(csi.DeleteVolume)
			tt.wayOut(t, w, volume)
			w.WaitPVGone(t, volume)
			for i, n := range w.callsPerNode(csi.DeleteVolume) {
				if n-before[i] != tt.calls[i] {
					t.Errorf("DeleteVolume was called %[2]d times on node %[1]s", w.nodes[i].NodeName, n-before[i])
				}
			}
			if n := len(w.nodes[1].Driver.Volumes()); n != tt.left {
				t.Errorf("node b has %d volumes, want %d", n, tt.left)
			}
		})
	}
}

// Nodes may share a topology segment, such as a zone. Their volumes have the same
// affinity, and here the same handle.
func TestVolumeOfSharedSegmentIsDeletedByItsNode(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	for _, n := range w.nodes {
		n.Driver.Reconfigure(func(o *csitest.Options) { o.Segments = []map[string]string{{zoneKey: "z"}} })
	}
	processes := w.startProvisioners(t)
	w.createDelayedClass(t)
	var handles []string
	for _, node := range []string{"a", "b"} {
		w.CreateClaim(t, "on-"+node, withSelectedNode(node))
		handles = append(handles, w.WaitBound(t, "on-"+node).Spec.CSI.VolumeHandle)
	}
	if handles[0] != handles[1] {
		t.Fatalf("the handles are %q", handles)
	}
	volume := w.WaitBound(t, "on-a")
	processes[0].Kill()
	w.DeleteClaim(t, "on-a")
	w.waitSingleWarning(t, volume, "is left to the provisioner of node a")
	w.checkDeleteCalls(t, 0, 0)
	w.nodes[0].StartProvisioner(t, fastNodeRetries...)
	w.WaitPVGone(t, volume)
	w.checkDeleteCalls(t, 1, 0)
	if a, b := len(w.nodes[0].Driver.Volumes()), len(w.nodes[1].Driver.Volumes()); a != 0 || b != 1 {
		t.Errorf("the nodes have %d and %d volumes", a, b)
	}
	w.DeleteClaim(t, "on-b")
	w.waitNothingLeft(t)
}
