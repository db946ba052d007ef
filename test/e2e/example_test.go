package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// readmeSteps returns the commands in the section "Steps" of an example's README.
func readmeSteps(t *testing.T, readme string) []string {
	t.Helper()
	text, err := os.ReadFile(readme)
	must(t, err)
	_, rest, ok := strings.Cut(string(text), "\n## Steps\n")
	var all []string
	for ok {
		var block string
		if _, rest, ok = strings.Cut(rest, "\n```sh\n"); ok {
			block, rest, _ = strings.Cut(rest, "\n```\n")
			all = append(all, block)
		}
	}
	return all
}

// checkoutDir is a folder in which the commands of a README work: a checkout after
// "make build", with the programs under test.
func checkoutDir(t *testing.T) string {
	t.Helper()
	programs, err := world.Programs()
	must(t, err)
	top, err := filepath.Abs(filepath.Join("..", ".."))
	must(t, err)
	dir := t.TempDir()
	must(t, os.Symlink(programs, filepath.Join(dir, "bin")))
	for _, folder := range []string{"deploy", "driver", "examples"} {
		must(t, os.Symlink(filepath.Join(top, folder), filepath.Join(dir, folder)))
	}
	return dir
}

// runShell runs commands in one shell, as in "devcluster exec -- bash", and returns
// their output.
func runShell(ctx context.Context, t *testing.T, c *cluster.Cluster, dir string, commands ...string) (string, error) {
	t.Helper()
	binary, err := cluster.Binary()
	must(t, err)
	binary, err = filepath.Abs(binary)
	must(t, err)
	cmd := exec.CommandContext(ctx, "bash", "-exuo", "pipefail", "-c", strings.Join(commands, "\n"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "DEVCLUSTER="+binary, "DEVCLUSTER_NAME="+c.Name,
		"PATH="+filepath.Join(filepath.Dir(c.Kubeconfig), "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// A readmeRunner follows the README of an example in a cluster.
type readmeRunner struct {
	*cluster.Cluster
	dir   string
	steps []string
}

// newReadmeRunner reads the README of an example, which must have the known steps.
func newReadmeRunner(t *testing.T, c *cluster.Cluster, example string, known ...string) *readmeRunner {
	t.Helper()
	r := &readmeRunner{
		Cluster: c, dir: checkoutDir(t),
		steps: readmeSteps(t, filepath.Join("..", "..", "examples", example, "README.md")),
	}
	if len(r.steps) != len(known) {
		t.Fatalf("the README has %d blocks of commands and the test knows %d: %s", len(r.steps), len(known), strings.Join(known, ", "))
	}
	return r
}

// run runs commands, of the README or others, and returns their output.
func (r *readmeRunner) run(t *testing.T, commands ...string) string {
	t.Helper()
	out, err := runShell(t.Context(), t, r.Cluster, r.dir, commands...)
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return out
}

// cleanUpWith removes everything when the test ends. If the test failed it first shows
// the output of a command.
func (r *readmeRunner) cleanUpWith(t *testing.T, show string, remove ...string) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := runShell(context.Background(), t, r.Cluster, r.dir, show)
			t.Log(out)
		}
		if out, err := runShell(context.Background(), t, r.Cluster, r.dir, remove...); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// The test follows the README of the example, with a manifest that was not written for
// this program: its claim is bound, a pod uses the volume, and both are deleted
// without a trace.
func TestProvisionerExampleWorksAsItsReadmeSays(t *testing.T) {
	c := newReadmeRunner(t, cluster.New(t, cluster.WithNodes(1)), "csi-provisioner", "load", "apply", "use", "drop", "remove")
	all := c.steps
	c.cleanUpWith(t, `kubectl describe pvc,pod || true
		kubectl -n kube-system describe pod -l app=csi-provisioner || true
		for c in csi-provisioner driver node-driver-registrar; do kubectl -n kube-system logs deploy/csi-provisioner -c $c --tail=50 || true; done`,
		"kubectl delete pod/example-pod pvc/example-pvc --ignore-not-found", all[4])

	c.run(t, all[0], all[1])
	claim, err := c.Client.CoreV1().PersistentVolumeClaims("default").Get(t.Context(), "example-pvc", metav1.GetOptions{})
	must(t, err)
	volume, err := c.Client.CoreV1().PersistentVolumes().Get(t.Context(), claim.Spec.VolumeName, metav1.GetOptions{})
	must(t, err)
	if want := "csi-" + string(claim.UID); volume.Name != want || volume.Spec.CSI.Driver != "local.holdfast.io" ||
		volume.Annotations["pv.kubernetes.io/provisioned-by"] != "storage.example.com/csi" || volume.Spec.Capacity.Storage().String() != "10Gi" {
		t.Errorf("the volume, which should be %s: %+v", want, volume)
	}
	if out := c.run(t, all[2]); !strings.HasSuffix(out, "\nkept\n") {
		t.Errorf("the pod's file: %s", out)
	}
	c.run(t, "volume="+volume.Name, all[3])
	if left := c.Run(t, c.Nodes[0], "ls", "/var/lib/holdfast/local/volumes"); strings.TrimSpace(left) != "" {
		t.Errorf("the driver still has %s", left)
	}
	c.run(t, all[4])
	_, err = c.Client.StorageV1().StorageClasses().Get(t.Context(), "csi-storageclass", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the class still exists: %v", err)
	}
}
