package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/world"
)

// newAttachWorld deploys the local driver whose volumes are attached to one node at a
// time.
func newAttachWorld(t *testing.T) localWorld {
	t.Helper()
	w := deploy(t, deployment{
		nodes:     2,
		manifest:  filepath.Join("..", "..", "driver", "local", "deploy", "local-driver-attach.yaml"),
		driver:    "attach.local.holdfast.io",
		namespace: "holdfast-attach",
		workloads: []string{"deploy/local-driver-controller", "daemonset/local-driver-node"},
	})
	for _, node := range w.Nodes {
		w.waitRegistered(t, node)
	}
	return w
}

// waitRegistered waits until a node's kubelet has registered the driver in the
// CSINode.
func (w localWorld) waitRegistered(t *testing.T, node string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		n, err := w.Client.StorageV1().CSINodes().Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(n.Spec.Drivers, func(d storagev1.CSINodeDriver) bool { return d.Name == w.Name && d.NodeID == node }) {
			return fmt.Errorf("node %s has the drivers %v", node, n.Spec.Drivers)
		}
		return nil
	})
}

// attachedNodes returns the nodes of a volume's VolumeAttachments.
func (w localWorld) attachedNodes(ctx context.Context, volume string) ([]string, error) {
	list, err := w.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, a := range list.Items {
		if ptr.Deref(a.Spec.Source.PersistentVolumeName, "") == volume {
			nodes = append(nodes, a.Spec.NodeName)
		}
	}
	return nodes, nil
}

// waitAttachedTo waits until a volume is attached to exactly these nodes.
func (w localWorld) waitAttachedTo(t *testing.T, volume string, nodes ...string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		got, err := w.attachedNodes(ctx, volume)
		if err == nil && !slices.Equal(got, nodes) {
			err = fmt.Errorf("%s is attached to %v, want %v", volume, got, nodes)
		}
		return err
	})
}

func (w localWorld) cordon(t *testing.T, node string) {
	t.Helper()
	w.kubectl(t, "cordon", node)
	t.Cleanup(func() { w.uncordon(t, node) }) // The test may have done it already.
}

func (w localWorld) uncordon(t *testing.T, node string) {
	t.Helper()
	w.kubectl(t, "uncordon", node)
}

// Volumes move between two nodes in all common ways, by the real scheduler,
// attach/detach controller and kubelets.
func TestOnTwoNodesVolumesAreMoved(t *testing.T) {
	w := newAttachWorld(t)
	w.checkSingleAttachment(t)
	t.Run("volumes", func(t *testing.T) {
		t.Run("a file moves from node to node", func(t *testing.T) {
			w.movePod(t, corev1.PersistentVolumeFilesystem, "echo kept > /data/file; echo written", "cat /data/file")
		})
		t.Run("a device moves from node to node", func(t *testing.T) {
			w.movePod(t, corev1.PersistentVolumeBlock, "echo kept | dd of=/dev/data bs=512 conv=sync; sync; echo written", "head -c 4 /dev/data; echo")
		})
		t.Run("a StatefulSet is scaled", w.scaleStatefulSet)
		t.Run("one node is cordoned", func(t *testing.T) {
			t.Parallel()
			t.Run("and drained", w.drainNodes)
			t.Run("and a pod is deleted by force", w.deletePodByForce)
		})
	})
	t.Run("nothing is left on the machine", w.checkNothingShared)
}

// movePod reads on one node what a pod wrote on another one.
func (w localWorld) movePod(t *testing.T, mode corev1.PersistentVolumeMode, write, read string) {
	t.Parallel()
	name := "goes-" + strings.ToLower(string(mode))
	w.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) {
		c.Spec.StorageClassName, c.Spec.VolumeMode = ptr.To("local-attach"), &mode
	})
	volume := w.WaitBound(t, name)
	w.createPodOn(t, w.Nodes[0], "writer-"+name, name, write)
	w.waitForPodLog(t, "writer-"+name, "written")
	if nodes, err := w.attachedNodes(t.Context(), volume.Name); err != nil || !slices.Equal(nodes, w.Nodes[:1]) {
		t.Errorf("%s is attached to %v (%v), want %v", volume.Name, nodes, err, w.Nodes[:1])
	}
	w.deletePod(t, "writer-"+name)
	w.createPodOn(t, w.Nodes[1], "reader-"+name, name, read)
	w.waitForPodLog(t, "reader-"+name, "kept")
	w.deletePod(t, "reader-"+name)
	w.DeleteClaim(t, name)
	w.WaitPVGone(t, volume)
}

// scaleStatefulSet checks that replicas get their own data back, and what is attached
// meanwhile.
func (w localWorld) scaleStatefulSet(t *testing.T) {
	t.Parallel()
	const replicas = 3
	s := w.createSet(t, "scaled", corev1.PersistentVolumeFilesystem, nil)
	for start := 1; start <= 2; start++ {
		s.scale(t, replicas)
		for i := range replicas {
			s.waitStarted(t, i, start)
			w.waitAttachedTo(t, s.volume(t, i), s.node(t, i))
		}
		s.scale(t, 0)
		for i := range replicas {
			w.waitAttachedTo(t, s.volume(t, i))
		}
	}
	s.delete(t)
}

// drainNodes moves a file and a device from one node to the other and back.
func (w localWorld) drainNodes(t *testing.T) {
	sets := []*statefulSet{
		w.createSet(t, "drained-file", corev1.PersistentVolumeFilesystem, nil),
		w.createSet(t, "drained-device", corev1.PersistentVolumeBlock, nil),
	}
	w.cordon(t, w.Nodes[1])
	for _, s := range sets {
		s.scale(t, 1)
	}
	for _, s := range sets {
		s.waitStarted(t, 0, 1)
	}
	for start, from := range w.Nodes[:2] {
		to := w.Nodes[1-start]
		w.uncordon(t, to)
		w.kubectl(t, "drain", from, "--pod-selector=test in (drained-file,drained-device)", "--timeout="+world.Timeout.String())
		for _, s := range sets {
			s.waitStarted(t, 0, start+2)
			w.waitAttachedTo(t, s.volume(t, 0), to)
		}
	}
	w.uncordon(t, w.Nodes[1])
	for _, s := range sets {
		s.delete(t)
	}
}

// deletePodByForce deletes a pod whose container continues for seconds. Its
// replacement on another node, which exists at once, must wait for the volume.
func (w localWorld) deletePodByForce(t *testing.T) {
	s := w.createSet(t, "forced", corev1.PersistentVolumeFilesystem, func(pod *corev1.PodSpec) {
		pod.TerminationGracePeriodSeconds = ptr.To(int64(3))
	})
	s.scale(t, 1)
	s.waitStarted(t, 0, 1)
	from := s.node(t, 0)
	w.cordon(t, from)
	w.kubectl(t, "-n", w.Namespace, "delete", "pod", s.pod(0), "--force", "--grace-period=0")
	s.waitStarted(t, 0, 2)
	if to := s.node(t, 0); to == from {
		t.Errorf("the replacement is on %s as the pod was, so this test shows nothing", to)
	}
	w.uncordon(t, from)
	s.delete(t)
}

// checkNothingShared checks that the folder shared by the nodes is empty.
func (w localWorld) checkNothingShared(t *testing.T) {
	const shared = "/var/lib/holdfast/shared"
	for _, what := range []string{"ls " + shared + "/volumes", "ls " + shared + "/attached", "grep -l holdfast/shared /sys/block/loop*/loop/backing_file || true"} {
		if left := w.Run(t, w.Nodes[0], "sh", "-c", what); strings.TrimSpace(left) != "" {
			t.Errorf("%s: %s", what, left)
		}
	}
}
