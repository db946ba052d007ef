package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// upstreamPermissions are the files with the permissions of upstream's sidecars, in the Go
// modules that have them. Only these files are read.
var upstreamPermissions = map[string]string{
	"github.com/kubernetes-csi/external-provisioner/v6@v6.4.0": "deploy/kubernetes/rbac.yaml",
	"github.com/kubernetes-csi/external-attacher/v4@v4.13.0":   "deploy/kubernetes/rbac.yaml",
	"github.com/kubernetes-csi/external-resizer/v2@v2.3.0":     "deploy/kubernetes/rbac.yaml",
	"github.com/kubernetes-csi/external-snapshotter/v8@v8.7.0": "deploy/kubernetes/csi-snapshotter/rbac-csi-snapshotter.yaml",
}

// upstreamImages are the images of testdata/hostpath.yaml that this program replaces, with
// the names of the programs that they run.
var upstreamImages = map[string]string{
	"csi-node-driver-registrar:v2.9.3": "csi-node-driver-registrar",
	"livenessprobe:v2.11.0":            "livenessprobe",
	"csi-attacher:v4.4.3":              "csi-attacher",
	"csi-provisioner:v3.6.3":           "csi-provisioner",
	"csi-resizer:v1.9.3":               "csi-resizer",
	"csi-snapshotter:v6.3.3":           "csi-snapshotter",
}

// A manifest that was written for upstream's sidecars, with upstream's permissions, works
// when only the images are other ones: a pod uses a volume, which is expanded, and of which
// there is a snapshot, and no container has ended meanwhile.
func TestAManifestForUpstreamsSidecarsWorksAsItIs(t *testing.T) {
	w := deployHostpath(t)
	api := w.SnapshotClient(t)
	w.StartSnapshotController(t)
	w.CreateSnapshotClass(t, api, nil)
	w.CreateClass(t, func(c *storagev1.StorageClass) {
		world.WaitForFirstConsumer(c)
		c.AllowVolumeExpansion = ptr.To(true)
		c.Parameters = map[string]string{"csi.storage.k8s.io/fstype": "xfs"}
	})
	w.CreateClaim(t, "data", func(c *corev1.PersistentVolumeClaim) {
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("400Mi")
	})
	w.createPod(t, "writer", "data", `echo kept > /data/file; sync; echo written`)
	w.waitForPodLog(t, "writer", "written")
	volume := w.WaitBound(t, "data")
	if _, err := w.attachmentOf(t.Context(), volume.Name); err != nil {
		t.Error(err)
	}
	w.RequestSize(t, "data", "800Mi")
	w.WaitPV(t, volume.Name, func(v *corev1.PersistentVolume) error {
		if got := v.Spec.Capacity.Storage().String(); got != "800Mi" {
			return fmt.Errorf("the volume has %s", got)
		}
		return nil
	})
	w.CreateSnapshot(t, api, "data", "data", nil)
	w.WaitSnapshotReady(t, api, "data")

	w.checkLeases(t)
	w.checkPorts(t)
	w.checkNoRestarts(t)

	w.DeleteSnapshot(t, api, "data")
	w.WaitSnapshotGone(t, api, "data")
	w.deletePod(t, "writer")
	w.DeleteClaim(t, "data")
	w.WaitPVGone(t, volume)
}

// hostpathWorld is a node with testdata/hostpath.yaml.
type hostpathWorld struct{ localWorld }

// deployHostpath applies upstream's permissions and the manifest.
func deployHostpath(t *testing.T) hostpathWorld {
	t.Helper()
	programs, err := world.Programs()
	must(t, err)
	w := hostpathWorld{localWorld{&world.World{Cluster: cluster.New(t, cluster.WithNodes(1)), Name: "hostpath.csi.example.com"}}}
	for image, program := range upstreamImages {
		w.LoadImage(t, "upstream.example.com/"+image, map[string]string{"/" + program: filepath.Join(programs, "holdfast")})
	}
	w.LoadImage(t, "holdfast.io/local-driver:dev", map[string]string{"/local-driver": filepath.Join(programs, "local-driver")}, driverTools...)
	manifests := append(downloadPermissions(t), filepath.Join("testdata", "hostpath.yaml"))
	for _, m := range manifests {
		t.Cleanup(func() { w.kubectl(t, "delete", "-f", m, "--wait") })
		w.kubectl(t, "apply", "-f", m)
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := w.tryKubectl(context.Background(), "logs", "csi-hostpathplugin-0", "--all-containers", "--prefix", "--tail=60")
			t.Logf("logs of the driver's pod:\n%s", out)
		}
	})
	w.kubectl(t, "rollout", "status", "statefulset/csi-hostpathplugin", "--timeout="+world.Timeout.String())
	return w
}

// downloadPermissions returns the paths of upstream's files.
func downloadPermissions(t *testing.T) []string {
	t.Helper()
	var files []string
	for module, file := range upstreamPermissions {
		out, err := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module).Output()
		var downloaded struct{ Dir, Error string }
		if jsonErr := json.Unmarshal(out, &downloaded); jsonErr != nil || err != nil {
			t.Fatalf("downloading %s: %v, %v, %s", module, err, jsonErr, downloaded.Error)
		}
		files = append(files, filepath.Join(downloaded.Dir, file))
	}
	return files
}

// checkLeases checks where csi-attacher has its Lease: nobody has asked for an election, and
// these permissions allow it only in the pod's namespace.
func (w hostpathWorld) checkLeases(t *testing.T) {
	t.Helper()
	const lease = "external-attacher-leader-hostpath-csi-example-com"
	if _, err := w.Client.CoordinationV1().Leases("default").Get(t.Context(), lease, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}

// checkPorts checks that health is served at the ports of the manifest, and at the default
// port of livenessprobe.
func (w hostpathWorld) checkPorts(t *testing.T) {
	t.Helper()
	for _, port := range []string{"9898", "9808", "9809"} {
		said, err := w.Client.CoreV1().Pods("default").ProxyGet("http", "csi-hostpathplugin-0", port, "healthz", nil).DoRaw(t.Context())
		if string(said) != "ok" || err != nil {
			t.Errorf("health at port %s: %s, %v", port, said, err)
		}
	}
}

// checkNoRestarts checks that every container still runs in its first process.
func (w hostpathWorld) checkNoRestarts(t *testing.T) {
	t.Helper()
	pod, err := w.Client.CoreV1().Pods("default").Get(t.Context(), "csi-hostpathplugin-0", metav1.GetOptions{})
	must(t, err)
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; !s.Ready || s.RestartCount > 0 {
			t.Errorf("container %s was restarted %d times, ready %t: %+v", s.Name, s.RestartCount, s.Ready, s.LastTerminationState)
		}
	}
}
