package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
	"github.com/holdfast-io/holdfast/test/world"
)

// A nodeWorld has a driver on every node, with storage of its own.
type nodeWorld struct {
	*world.World
	nodes []*world.Node
}

// newNodeWorld returns a world whose nodes have 10 GiB each.
func newNodeWorld(t *testing.T, names ...string) *nodeWorld {
	t.Helper()
	w := &nodeWorld{World: world.New(t, csitest.Options{})}
	for _, name := range names {
		w.nodes = append(w.nodes, w.AddNode(t, name, csitest.Options{Capacity: 10 << 30, Record: true}))
	}
	return w
}

// fastNodeRetries are arguments with which nodes do not wait long.
var fastNodeRetries = []string{
	"--node-deployment-base-delay=100ms", "--node-deployment-max-delay=400ms", "--retry-interval-start=0.1", "--retry-interval-max=1",
}

func (w *nodeWorld) startProvisioners(t *testing.T, args ...string) []*world.Process {
	t.Helper()
	var all []*world.Process
	for _, n := range w.nodes {
		all = append(all, n.StartProvisioner(t, append(slices.Clone(fastNodeRetries), args...)...))
	}
	return all
}

func (w *nodeWorld) createDelayedClass(t *testing.T) {
	t.Helper()
	w.CreateClass(t, func(c *storagev1.StorageClass) {
		world.WaitForFirstConsumer(c)
	})
}

// withSelectedNode selects a node for a claim.
func withSelectedNode(node string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{"volume.kubernetes.io/selected-node": node}
	}
}

func withSize(size string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
	}
}

// callsPerNode returns how often each node's driver was called.
func (w *nodeWorld) callsPerNode(method csi.Method) []int {
	var all []int
	for _, n := range w.nodes {
		all = append(all, n.Driver.Calls(method))
	}
	return all
}

// nodeOf returns the node of a volume according to its affinity, and checks that the
// driver there created it.
func (w *nodeWorld) nodeOf(t *testing.T, volume *corev1.PersistentVolume) string {
	t.Helper()
	name := volume.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0]
	for _, n := range w.nodes {
		has := slices.ContainsFunc(n.Driver.Volumes(), func(v csitest.Volume) bool { return v.Name == volume.Name })
		if has != (n.NodeName == name) {
			t.Errorf("%s is on node %s and the driver of node %s has it: %t", volume.Name, name, n.NodeName, has)
		}
	}
	return name
}

// waitNothingLeft waits until nothing is left in the cluster and at the drivers.
func (w *nodeWorld) waitNothingLeft(t *testing.T) {
	t.Helper()
	for _, n := range w.nodes {
		n.WaitNothingLeft(t)
	}
}

func TestNodeServesItsSelectedClaims(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	w.startProvisioners(t)
	w.createDelayedClass(t)
	w.CreateClaim(t, "on-a", withSelectedNode("a"))
	w.CreateClaim(t, "on-b", withSelectedNode("b"))
	for _, name := range []string{"a", "b"} {
		volume := w.WaitBound(t, "on-"+name)
		if got := w.nodeOf(t, volume); got != name {
			t.Errorf("the volume for node %s is on node %s", name, got)
		}
		if by := volume.Spec.CSI.VolumeAttributes["storage.kubernetes.io/csiProvisionerIdentity"]; !strings.HasSuffix(by, w.Name+"-"+name) {
			t.Errorf("it was created by %s", by)
		}
	}
	if diff := cmp.Diff([]int{1, 1}, w.callsPerNode(csi.CreateVolume)); diff != "" {
		t.Error(diff)
	}

	// Only the driver that has the volume is called: others would say that it does not exist.
	w.DeleteClaim(t, "on-b")
	world.Eventually(t, func(context.Context) error {
		if n := len(w.nodes[1].Driver.Volumes()); n > 0 {
			return fmt.Errorf("node b has %d volumes", n)
		}
		return nil
	})
	if diff := cmp.Diff([]int{0, 1}, w.callsPerNode(csi.DeleteVolume)); diff != "" {
		t.Error(diff)
	}
	w.DeleteClaim(t, "on-a")
	w.waitNothingLeft(t)
}

// Without a scheduler the nodes decide among themselves: every claim gets one volume
// with one call.
func TestOneNodeClaimsAPendingClaim(t *testing.T) {
	t.Parallel()
	const claims = 20
	w := newNodeWorld(t, "a", "b", "c")
	for _, n := range w.nodes { // Enough that no node gets full meanwhile.
		n.Driver.Reconfigure(func(o *csitest.Options) { o.Capacity = claims << 30 })
	}
	w.startProvisioners(t)
	w.CreateClass(t, nil)
	for n := range claims {
		w.CreateClaim(t, fmt.Sprint("data-", n), nil)
	}
	homes := map[string]int{}
	for n := range claims {
		homes[w.nodeOf(t, w.WaitBound(t, fmt.Sprint("data-", n)))]++
	}
	t.Logf("volumes of each node: %v", homes)
	created := 0
	for _, n := range w.callsPerNode(csi.CreateVolume) {
		created += n
	}
	if created != claims {
		t.Errorf("%d volumes took %d calls", claims, created)
	}
	for n := range claims {
		w.DeleteClaim(t, fmt.Sprint("data-", n))
	}
	w.waitNothingLeft(t)
}

func TestNodeWithCapacityServesTheClaim(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	w.nodes[0].Driver.Reconfigure(func(o *csitest.Options) { o.Capacity = 1 << 30 })
	w.startProvisioners(t)
	w.CreateClass(t, nil)
	for n := range 3 {
		name := fmt.Sprint("data-", n)
		w.CreateClaim(t, name, withSize("3Gi"))
		if home := w.nodeOf(t, w.WaitBound(t, name)); home != "b" {
			t.Errorf("it is on node %s, which has too little capacity", home)
		}
	}
	if diff := cmp.Diff([]int{0, 3}, w.callsPerNode(csi.CreateVolume)); diff != "" {
		t.Error(diff)
	}

	// If no node has capacity, one event says so; later the claim is served.
	w.CreateClaim(t, "large", withSize("20Gi"))
	w.WaitClaimEvent(t, "large", corev1.EventTypeWarning, "ProvisioningFailed", "no node has taken the claim")
	w.nodes[0].Driver.Reconfigure(func(o *csitest.Options) { o.Capacity = 30 << 30 })
	if home := w.nodeOf(t, w.WaitBound(t, "large")); home != "a" {
		t.Errorf("it is on node %s", home)
	}
	events, err := w.Client.CoreV1().Events(w.Namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=large,reason=ProvisioningFailed"})
	if err != nil || len(events.Items) != 1 {
		t.Errorf("there are %d events, %v", len(events.Items), err)
	}
	for _, name := range []string{"data-0", "data-1", "data-2", "large"} {
		w.DeleteClaim(t, name)
	}
	w.waitNothingLeft(t)
}

// A driver that cannot report its capacity fails when it creates the volume. The node
// releases the claim, and another one serves it.
func TestClaimIsReleasedAfterResourceExhausted(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	for _, n := range w.nodes {
		n.Driver.SetHooks(csitest.Hooks{Before: func(_ context.Context, method csi.Method, _ any) error {
			if method == csi.GetCapacity {
				return errors.New("the capacity is unknown")
			}
			return nil
		}})
	}
	w.nodes[0].Driver.Reconfigure(func(o *csitest.Options) { o.Capacity = 1 << 30 })
	w.CreateClass(t, nil)
	a := w.nodes[0].StartProvisioner(t, fastNodeRetries...)
	w.CreateClaim(t, "data", withSize("3Gi"))
	w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "no room near node a")
	w.nodes[1].StartProvisioner(t, fastNodeRetries...)
	if home := w.nodeOf(t, w.WaitBound(t, "data")); home != "b" {
		t.Errorf("it is on node %s", home)
	}
	if n := w.nodes[1].Driver.Calls(csi.CreateVolume); n != 1 {
		t.Errorf("CreateVolume was called %d times on node b", n)
	}
	a.Kill()
	w.DeleteClaim(t, "data")
	w.waitNothingLeft(t)
}

// A node completes its operations whenever it comes back; nobody else can.
func TestNodeCompletesItsOperations(t *testing.T) {
	for name, meanwhile := range map[string]func(*testing.T, *nodeWorld){
		"the claim still wants the volume": func(*testing.T, *nodeWorld) {},
		"somebody has selected another node": func(t *testing.T, w *nodeWorld) {
			patch := []byte(`{"metadata":{"annotations":{"volume.kubernetes.io/selected-node":"b"}}}`)
			_, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Patch(t.Context(), "data", types.MergePatchType, patch, metav1.PatchOptions{})
			must(t, err)
			w.WaitClaimEvent(t, "data", corev1.EventTypeWarning, "ProvisioningFailed", "the provisioner of node a may have made the volume")
		},
		"the claim is gone": func(t *testing.T, w *nodeWorld) { w.DeleteClaim(t, "data") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newNodeWorld(t, "a", "b")
			processes := w.startProvisioners(t)
			w.createDelayedClass(t)
			working := w.nodes[0].Driver.Block(csi.CreateVolume)
			w.CreateClaim(t, "data", withSelectedNode("a"))
			<-working.Arrived()
			processes[0].Kill()
			meanwhile(t, w)
			// Another claim on the other node shows that it has seen all changes.
			w.CreateClaim(t, "other", withSelectedNode("b"))
			w.WaitBound(t, "other")
			working.Release()
			w.nodes[0].StartProvisioner(t, fastNodeRetries...)
			if _, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(t.Context(), "data", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				must(t, err)
				if home := w.nodeOf(t, w.WaitBound(t, "data")); home != "a" {
					t.Errorf("it is on node %s", home)
				}
				w.DeleteClaim(t, "data")
			}
			w.DeleteClaim(t, "other")
			w.waitNothingLeft(t)
			if diff := cmp.Diff([]int{2, 1}, w.callsPerNode(csi.CreateVolume)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Two nodes restore one snapshot. The first to finish does not remove the protection
// of the other, and no protection is left when both are done.
func TestSnapshotIsProtectedWhileAnyNodeRestoresIt(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	api := w.SnapshotClient(t)
	w.startProvisioners(t)
	w.createDelayedClass(t)
	w.CreateClaim(t, "source", withSelectedNode("a"))
	snapshot := createReadySnapshot(t, w.nodes[0].World, api, w.WaitBound(t, "source"), "before")
	// The other node's driver has a snapshot with the same handle.
	w.CreateClaim(t, "twin", withSelectedNode("b"))
	volume := w.WaitBound(t, "twin")
	twin := createReadySnapshot(t, w.nodes[1].World, api, volume, "twin")

	slow := w.nodes[0].Driver.Block(csi.CreateVolume)
	w.CreateClaim(t, "slow", func(c *corev1.PersistentVolumeClaim) {
		withSelectedNode("a")(c)
		withSource("VolumeSnapshot", "before")(c)
	})
	<-slow.Arrived()
	w.CreateClaim(t, "quick", func(c *corev1.PersistentVolumeClaim) {
		withSelectedNode("b")(c)
		withSource("VolumeSnapshot", "before")(c)
	})
	w.WaitBound(t, "quick")
	w.CreateClaim(t, "plain", withSelectedNode("b"))
	w.WaitBound(t, "plain")
	if !isProtected(t, api, snapshot) {
		t.Error("one node has removed the protection of another node's restore")
	}
	slow.Release()
	w.WaitBound(t, "slow")
	waitUnprotected(t, api, snapshot, twin)
	for _, name := range []string{"source", "twin", "slow", "quick", "plain"} {
		w.DeleteClaim(t, name)
	}
	w.waitNothingLeft(t)
}

func TestEachNodePublishesItsCapacity(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	w.startProvisioners(t, "--enable-capacity", "--capacity-ownerref-level=-1", "--capacity-poll-interval=24h")
	w.createDelayedClass(t)
	says := func(want ...string) {
		t.Helper()
		world.Eventually(t, func(ctx context.Context) error {
			list, err := w.Client.StorageV1().CSIStorageCapacities(w.Namespace).List(ctx, metav1.ListOptions{
				LabelSelector: "csi.storage.k8s.io/drivername=" + w.Name,
			})
			if err != nil {
				return err
			}
			var got []string
			for _, o := range list.Items {
				got = append(got, fmt.Sprintf("%s %s %s", o.Labels["csi.storage.k8s.io/managed-by"], o.NodeTopology.MatchLabels[world.NodeKey], o.Capacity))
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				return errors.New(diff)
			}
			return nil
		})
	}
	says("external-provisioner-a a 10Gi", "external-provisioner-b b 10Gi")
	w.CreateClaim(t, "data", withSelectedNode("b"))
	w.WaitBound(t, "data")
	says("external-provisioner-a a 10Gi", "external-provisioner-b b 9Gi")
	w.DeleteClaim(t, "data")
	says("external-provisioner-a a 10Gi", "external-provisioner-b b 10Gi")
	w.waitNothingLeft(t)
}

// An administrator who knows that a node will not come back sets policy Retain. Then
// deleting the object is enough, whichever nodes are left.
func TestVolumeOfLostNodeCanBeDeleted(t *testing.T) {
	t.Parallel()
	w := newNodeWorld(t, "a", "b")
	processes := w.startProvisioners(t)
	w.createDelayedClass(t)
	w.CreateClaim(t, "data", withSelectedNode("a"))
	volume := w.WaitBound(t, "data")
	processes[0].Kill()
	w.DeleteClaim(t, "data")
	volumes := w.Client.CoreV1().PersistentVolumes()
	w.WaitPVPhase(t, volume.Name, corev1.VolumeReleased)
	must(t, volumes.Delete(t.Context(), volume.Name, metav1.DeleteOptions{}))
	w.CreateClaim(t, "other", withSelectedNode("b"))
	w.WaitBound(t, "other")
	if _, err := volumes.Get(t.Context(), volume.Name, metav1.GetOptions{}); err != nil {
		t.Fatalf("the volume was deleted without permission: %v", err)
	}
	w.SetReclaimPolicy(t, volume.Name, corev1.PersistentVolumeReclaimRetain)
	w.WaitPVGone(t, volume)
	if diff := cmp.Diff([]int{0, 0}, w.callsPerNode(csi.DeleteVolume)); diff != "" {
		t.Errorf("DeleteVolume was called for a retained volume: %s", diff)
	}
	w.DeleteClaim(t, "other")
	w.nodes[1].WaitNothingLeft(t)
}

func TestNodeDeploymentChecksItsArguments(t *testing.T) {
	t.Parallel()
	w := world.New(t, csitest.Options{})
	for name, tt := range map[string]struct {
		node *world.Node
		arg  string
		want string
	}{
		"a name":          {w.AddNode(t, "", csitest.Options{}), "", "NODE_NAME"},
		"a topology":      {&world.Node{World: w, NodeName: "a"}, "", "topology"},
		"no leader":       {w.AddNode(t, "a", csitest.Options{}), "--leader-election", "remove --leader-election"},
		"a longest pause": {w.AddNode(t, "a", csitest.Options{}), "--node-deployment-max-delay=1s", "--node-deployment-max-delay"},
	} {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(tt.arg)
			p := tt.node.StartProvisioner(t, args...)
			if err := p.Err(); err == nil || !strings.Contains(p.Log(), tt.want) {
				t.Errorf("it ended with %v, and the log lacks %q", err, tt.want)
			}
		})
	}
}
