package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// manifest is what a user applies to run the local driver on a node.
var manifest = filepath.Join("..", "..", "driver", "local", "deploy", "local-driver.yaml")

// driverTools are the programs that the local driver runs.
var driverTools = []string{
	"/usr/sbin/mkfs.ext4", "/usr/sbin/e2fsck", "/usr/sbin/resize2fs", "/usr/sbin/mkfs.xfs", "/usr/sbin/xfs_growfs",
	"/usr/bin/mount", "/usr/bin/umount",
}

// localWorld is a cluster with real nodes and the local driver.
type localWorld struct{ *world.World }

// deployment describes how the local driver is deployed.
type deployment struct {
	nodes                       int
	manifest, driver, namespace string
	workloads                   []string
}

// newLocalWorld deploys the driver on one node.
func newLocalWorld(t *testing.T) localWorld {
	t.Helper()
	return deploy(t, deployment{
		nodes: 1, manifest: manifest, driver: "local.holdfast.io", namespace: "holdfast-system", workloads: []string{"deploy/local-driver"},
	})
}

// deploy deploys the driver with its manifest.
func deploy(t *testing.T, d deployment) localWorld {
	t.Helper()
	programs, err := world.Programs()
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.New(t, cluster.WithNodes(d.nodes))
	w := localWorld{&world.World{Cluster: c, Name: d.driver}}
	c.LoadImage(t, "holdfast.io/holdfast:dev", map[string]string{"/holdfast": filepath.Join(programs, "holdfast")})
	c.LoadImage(t, "holdfast.io/local-driver:dev", map[string]string{"/local-driver": filepath.Join(programs, "local-driver")}, driverTools...)
	w.kubectl(t, "apply", "-f", d.manifest)
	t.Cleanup(func() {
		for _, workload := range d.workloads {
			if t.Failed() {
				out, _ := w.tryKubectl(context.Background(), "-n", d.namespace, "logs", workload, "--all-pods", "--all-containers", "--tail=100")
				t.Logf("logs of the pods of %s:\n%s", workload, out)
			}
		}
		w.kubectl(t, "delete", "-f", d.manifest, "--wait")
	})
	for _, workload := range d.workloads {
		w.kubectl(t, "-n", d.namespace, "rollout", "status", workload, "--timeout="+world.Timeout.String())
	}
	return w
}

func (w localWorld) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.tryKubectl(context.Background(), args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (w localWorld) tryKubectl(ctx context.Context, args ...string) (string, error) {
	binary, err := cluster.Binary()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, binary, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.Kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// createPod runs a shell script with a claim at /data, or as the device /dev/data.
func (w localWorld) createPod(t *testing.T, name, claim, script string) {
	t.Helper()
	w.createPodOn(t, "", name, claim, script)
}

// createPodOn is createPod on a given node.
func (w localWorld) createPodOn(t *testing.T, node, name, claim, script string) {
	t.Helper()
	container := corev1.Container{Name: "main", Image: cluster.BusyboxImage, Command: []string{"sh", "-ec", script + "\nsleep 100000"}}
	got, err := w.Client.CoreV1().PersistentVolumeClaims(w.Namespace).Get(t.Context(), claim, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ptr.Deref(got.Spec.VolumeMode, "") == corev1.PersistentVolumeBlock {
		container.VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/data"}}
	} else {
		container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
	_, err = w.Client.CoreV1().Pods(w.Namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			TerminationGracePeriodSeconds: ptr.To(int64(0)),
			Containers:                    []corev1.Container{container},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
			}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// waitForPodLog waits until a pod's log has a line.
func (w localWorld) waitForPodLog(t *testing.T, pod, line string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		log, err := w.Client.CoreV1().Pods(w.Namespace).GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(ctx)
		if err == nil && !strings.Contains("\n"+string(log), "\n"+line+"\n") {
			err = fmt.Errorf("the log of pod %s lacks %q: %s", pod, line, log)
		}
		return err
	})
}

// annotatePod makes the kubelet sync a pod and its volumes, which it does otherwise
// every minute or so.
func (w localWorld) annotatePod(t *testing.T, pod string) {
	t.Helper()
	_, err := w.Client.CoreV1().Pods(w.Namespace).Patch(t.Context(), pod, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"example.com/touched":"true"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (w localWorld) deletePod(t *testing.T, name string) {
	t.Helper()
	pods := w.Client.CoreV1().Pods(w.Namespace)
	if err := pods.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	world.Eventually(t, func(ctx context.Context) error {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("pod %s still exists: %w", name, err)
	})
}

// A claim gets a volume to which a pod on a real node writes, and which another pod
// reads. The volume is deleted without a trace.
func TestPodsUseVolumesOfTheLocalDriver(t *testing.T) {
	w := newLocalWorld(t)
	const write = `echo kept > /data/file; sync; grep " /data " /proc/mounts | cut -d' ' -f3; echo written`
	tests := map[string]struct {
		class       func(*storagev1.StorageClass)
		claim       func(*corev1.PersistentVolumeClaim)
		write, read string
		says        string // logged by the writer
	}{
		"ext4": {
			write: write, says: "ext4", read: "cat /data/file",
		},
		"xfs, with a mount option": {
			class: func(c *storagev1.StorageClass) {
				c.Parameters = map[string]string{"csi.storage.k8s.io/fstype": "xfs"}
				c.MountOptions = []string{"noatime"}
			},
			write: `grep " /data " /proc/mounts | grep -q noatime; ` + write, says: "xfs", read: "cat /data/file",
		},
		"a block device": {
			claim: func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock) },
			write: `echo kept | dd of=/dev/data bs=512 conv=sync; sync; echo device; echo written`, says: "device", read: "head -c 4 /dev/data; echo",
		},
		"bound before there is a pod": {
			class: func(c *storagev1.StorageClass) { c.VolumeBindingMode = ptr.To(storagev1.VolumeBindingImmediate) },
			write: write, says: "ext4", read: "cat /data/file",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			kind := strings.Map(func(r rune) rune {
				if r == ' ' || r == ',' {
					return '-'
				}
				return r
			}, name)
			class := w.CreateClass(t, func(c *storagev1.StorageClass) {
				c.Name = w.Namespace + "-" + kind
				world.WaitForFirstConsumer(c)
				if tt.class != nil {
					tt.class(c)
				}
			})
			w.CreateClaim(t, kind, func(c *corev1.PersistentVolumeClaim) {
				c.Spec.StorageClassName = &class.Name
				c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("400Mi")
				if tt.claim != nil {
					tt.claim(c)
				}
			})
			w.createPod(t, "writer-"+kind, kind, tt.write)
			w.waitForPodLog(t, "writer-"+kind, "written")
			w.waitForPodLog(t, "writer-"+kind, tt.says)
			volume := w.WaitBound(t, kind)
			if size := volume.Spec.Capacity.Storage().String(); size != "400Mi" {
				t.Errorf("the volume has %s", size)
			}
			w.deletePod(t, "writer-"+kind)
			w.createPod(t, "reader-"+kind, kind, tt.read)
			w.waitForPodLog(t, "reader-"+kind, "kept")
			w.deletePod(t, "reader-"+kind)
			w.DeleteClaim(t, kind)
			w.WaitPVGone(t, volume)
		})
	}
	t.Run("volumes are expanded in use", func(t *testing.T) { w.growVolumesInUse(t) })
	t.Run("nothing is left on the node", func(t *testing.T) {
		for _, what := range []string{"ls /var/lib/holdfast/local/volumes", "grep -l /var/lib/holdfast/local /sys/block/loop*/loop/backing_file || true"} {
			if left := w.Run(t, w.Nodes[0], "sh", "-c", what); strings.TrimSpace(left) != "" {
				t.Errorf("%s: %s", what, left)
			}
		}
	})
}

// growVolumesInUse expands volumes while a pod uses them. Growing an ext4 filesystem
// in use takes CAP_SYS_RESOURCE, which not every machine has; the driver's own tests
// cover it.
func (w localWorld) growVolumesInUse(t *testing.T) {
	tests := map[string]struct {
		parameters map[string]string
		mode       corev1.PersistentVolumeMode
		size       string // a command that prints how many MiB the pod sees
	}{
		"xfs-grows":    {map[string]string{"csi.storage.k8s.io/fstype": "xfs"}, corev1.PersistentVolumeFilesystem, `df -m /data | tail -n1 | awk '{print $2}'`},
		"device-grows": {nil, corev1.PersistentVolumeBlock, `expr $(blockdev --getsize64 /dev/data) / 1048576`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			class := w.CreateClass(t, func(c *storagev1.StorageClass) {
				c.Name = w.Namespace + "-" + name
				world.WaitForFirstConsumer(c)
				c.AllowVolumeExpansion = ptr.To(true)
				c.Parameters = tt.parameters
			})
			w.CreateClaim(t, name, func(c *corev1.PersistentVolumeClaim) {
				c.Spec.StorageClassName, c.Spec.VolumeMode = &class.Name, &tt.mode
				c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("400Mi")
			})
			// The pod logs when it sees more than the original volume could hold.
			w.createPod(t, name, name, "echo started; while [ $("+tt.size+") -lt 700 ]; do sleep 0.2; done; echo grown")
			w.waitForPodLog(t, name, "started")
			volume := w.WaitBound(t, name)
			w.RequestSize(t, name, "800Mi")
			w.WaitClaim(t, name, func(c *corev1.PersistentVolumeClaim) error {
				status := c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
				if c.Status.AllocatedResources.Storage().String() != "800Mi" || status == corev1.PersistentVolumeClaimControllerResizeInProgress {
					return errors.New("the volume itself is not expanded yet")
				}
				return nil
			})
			w.annotatePod(t, name)
			w.waitForPodLog(t, name, "grown")
			w.WaitSize(t, name, "800Mi")
			w.WaitClaimEvent(t, name, corev1.EventTypeNormal, "FileSystemResizeRequired", "")
			w.deletePod(t, name)
			w.DeleteClaim(t, name)
			w.WaitPVGone(t, volume)
		})
	}
}
