package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/test/world"
)

// nodeDocsCommands returns the commands in a section of
// docs/how-to/node-deployment.md.
func nodeDocsCommands(t *testing.T, section string, known int) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "how-to", "node-deployment.md"))
	must(t, err)
	_, rest, ok := strings.Cut(string(text), "\n## "+section+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	var all []string
	for _, block := range regexp.MustCompile("(?s)\n```sh\n(.*?)\n```\n").FindAllStringSubmatch(rest, -1) {
		all = append(all, block[1])
	}
	if !ok || len(all) != known {
		t.Fatalf("section %q has %d blocks of commands and the test knows %d", section, len(all), known)
	}
	return all
}

// run runs commands of the page, with the test's names instead of the page's.
func (w *nodeWorld) run(t *testing.T, commands string, names ...string) string {
	t.Helper()
	names = append([]string{"my-driver", w.Namespace, "TEAM", w.Namespace}, names...)
	out, err := runShell(t.Context(), t, w.Cluster, t.TempDir(), strings.NewReplacer(names...).Replace(commands))
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return out
}

// Users who have lost a node copy these commands.
func TestCommandsForALostNodeWork(t *testing.T) {
	t.Parallel()
	show, volumes, leases, capacities := "", "", "", ""
	for i, block := range nodeDocsCommands(t, "When a node is gone for good", 5)[:4] { // The fifth is for snapshots.
		*[]*string{&show, &volumes, &leases, &capacities}[i] = block
	}
	w := newNodeWorld(t, "a", "b")
	api := w.SnapshotClient(t)
	processes := w.startProvisioners(t, "--enable-capacity", "--capacity-ownerref-level=-1", "--snapshot-orphan-sweep-interval=1s")
	w.CreateClass(t, func(c *storagev1.StorageClass) { // Only a class with WaitForFirstConsumer has capacities.
		c.Name, c.VolumeBindingMode = w.Namespace+"-waits", ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)
	})
	w.waitCapacities(t, "a", "b")
	unknown := w.createVolumeByHand(t, nil) // It is at node b, and is deleted before anybody looks for it.
	must(t, w.nodes[1].ConnectDriver(t).WithPrecondition(csi.Unconditional).DeleteVolume(t.Context(), &csipb.DeleteVolumeRequest{VolumeId: unknown.Spec.CSI.VolumeHandle}))
	w.CreateClaim(t, "source", withSelectedNode("a"))
	volume := w.WaitBound(t, "source")
	snapshot := createReadySnapshot(t, w.nodes[0].World, api, volume, "before")
	for _, n := range w.nodes {
		defer n.Driver.Block(csi.CreateVolume).Release()
	}
	w.CreateClaim(t, "restored", func(c *corev1.PersistentVolumeClaim) {
		withSelectedNode("a")(c)
		withSource("VolumeSnapshot", "before")(c)
	})
	world.Eventually(t, func(context.Context) error {
		if !isProtected(t, api, snapshot) {
			return errors.New("the snapshot is not protected")
		}
		return nil
	})
	w.CreateClaim(t, "taken", withSelectedNode("a"))
	processes[0].Kill()
	w.DeleteClaim(t, "source")
	w.DeleteClaim(t, "data")
	w.DeleteClaim(t, "restored")
	w.waitSingleWarning(t, unknown, "no node's driver has found it")

	if out := w.run(t, show); !strings.Contains(out, volume.Name) || !strings.Contains(out, w.Name+"-a") {
		t.Errorf("the output does not name the volume or the node that created it:\n%s", out)
	}
	for _, v := range []*corev1.PersistentVolume{volume, unknown} {
		w.run(t, volumes, "PV", v.Name)
		w.WaitPVGone(t, v)
	}
	w.run(t, leases, "NODE", "a", "CLAIM", "taken")
	w.run(t, capacities, "NODE", "a")
	waitUnprotected(t, api, snapshot)
	w.waitOnlyNodeB(t)
}

// waitOnlyNodeB waits until nothing of node a is left except claim taken, which node b
// serves.
func (w *nodeWorld) waitOnlyNodeB(t *testing.T) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		claim, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(ctx, "taken", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if node := claim.Annotations["volume.kubernetes.io/selected-node"]; node != "b" {
			return fmt.Errorf("the claim's selected node is %q", node)
		}
		if _, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(ctx, "restored", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the deleted claim still exists: %w", err)
		}
		left, err := w.Client.CoordinationV1().Leases(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: pending.NodeLabel + "=node-a"})
		if err != nil {
			return err
		}
		if len(left.Items) > 0 {
			return fmt.Errorf("%d Leases are left", len(left.Items))
		}
		return nil
	})
	w.waitCapacities(t, "b")
}

// waitCapacities waits until exactly these nodes have a CSIStorageCapacity.
func (w *nodeWorld) waitCapacities(t *testing.T, nodes ...string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		list, err := w.Client.StorageV1().CSIStorageCapacities(w.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var have []string
		for _, o := range list.Items {
			have = append(have, o.NodeTopology.MatchLabels[world.NodeKey])
		}
		if slices.Sort(have); !slices.Equal(nodes, have) {
			return fmt.Errorf("there are capacities of %q, want %q", have, nodes)
		}
		return nil
	})
}

// The annotation and the node affinity both say where a volume is.
func TestCommandsForTheNodeOfAVolumeWork(t *testing.T) {
	for i, block := range nodeDocsCommands(t, "Which node deletes a volume", 2) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			w := newNodeWorld(t, "a", "b")
			w.setCapabilities()
			w.startProvisioners(t)
			volume := w.createVolumeByHand(t, nil)
			w.run(t, block, "PV", volume.Name, "NODE", "b", "KEY", world.NodeKey)
			w.DeleteClaim(t, "data")
			w.WaitPVGone(t, volume)
			w.checkDeleteCalls(t, 0, 1)
			if n := len(w.nodes[1].Driver.Volumes()); n != 1 {
				t.Errorf("node b has %d volumes, want the other one", n)
			}
		})
	}
}
