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

// newAttachWorld deploys the local driver for volumes that nodes take turns with.
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
		w.registered(t, node)
	}
	return w
}

// registered waits until a node's kubelet has put the driver on record.
func (w localWorld) registered(t *testing.T, node string) {
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

// attachments are the nodes that have a volume, as Kubernetes sees it.
func (w localWorld) attachments(ctx context.Context, volume string) ([]string, error) {
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

// What a pod wrote on one node a pod on another node reads, when the volume has
// gone there by the hands of the real attach/detach controller and kubelets.
func TestAVolumeGoesFromNodeToNode(t *testing.T) {
	w := newAttachWorld(t)
	tests := map[string]struct {
		mode        corev1.PersistentVolumeMode
		write, read string
	}{
		"filesystem": {corev1.PersistentVolumeFilesystem, "echo kept > /data/file; echo written", "cat /data/file"},
		"device":     {corev1.PersistentVolumeBlock, "echo kept | dd of=/dev/data bs=512 conv=sync; sync; echo written", "head -c 4 /dev/data; echo"},
	}
	t.Run("volumes", func(t *testing.T) {
		for name, tt := range tests {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w.Claim(t, name, func(c *corev1.PersistentVolumeClaim) {
					c.Spec.StorageClassName = ptr.To("local-attach")
					c.Spec.VolumeMode = &tt.mode
				})
				volume := w.Bound(t, name)
				w.podOn(t, w.Nodes[0], "writer-"+name, name, tt.write)
				w.says(t, "writer-"+name, "written")
				if nodes, err := w.attachments(t.Context(), volume.Name); err != nil || !slices.Equal(nodes, w.Nodes[:1]) {
					t.Errorf("%s is attached to %v (%v), want %v", volume.Name, nodes, err, w.Nodes[:1])
				}
				w.dropPod(t, "writer-"+name)
				w.podOn(t, w.Nodes[1], "reader-"+name, name, tt.read)
				w.says(t, "reader-"+name, "kept")
				w.dropPod(t, "reader-"+name)
				w.DropClaim(t, name)
				w.Gone(t, volume)
			})
		}
	})
	t.Run("nothing is left on the machine", func(t *testing.T) {
		const shared = "/var/lib/holdfast/shared"
		for _, what := range []string{"ls " + shared + "/volumes", "ls " + shared + "/attached", "grep -l holdfast/shared /sys/block/loop*/loop/backing_file || true"} {
			if left := w.Run(t, w.Nodes[0], "sh", "-c", what); strings.TrimSpace(left) != "" {
				t.Errorf("%s: %s", what, left)
			}
		}
	})
}
