package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// snapshotNodeWorld is a cluster with a real node, the local driver on it, and both
// halves of the work on snapshots as pods.
type snapshotNodeWorld struct {
	localWorld
	api   client.Client
	dir   string // in which the commands of the README work
	steps []string
}

// logs shows what the roles say.
const logs = `kubectl -n kube-system logs deploy/snapshot-controller --all-pods --tail=100 || true
	kubectl -n holdfast-system logs deploy/local-driver --all-containers --tail=100 || true`

// newSnapshotNode installs everything as the README of the example says. The
// cluster is the test's own: the snapshot-controller works on all namespaces, and
// other tests have controllers of their own. It lets claims name a source in
// another namespace.
func newSnapshotNode(t *testing.T) *snapshotNodeWorld {
	t.Helper()
	c := cluster.New(t, cluster.Own(), cluster.WithNodes(1), cluster.WithAPIServerArgs("--feature-gates=CrossNamespaceVolumeDataSource=true"))
	w := &snapshotNodeWorld{
		localWorld: localWorld{&world.World{Cluster: c, Name: "local.holdfast.io"}}, dir: checkoutDir(t),
		steps: readmeSteps(t, filepath.Join("..", "..", "examples", "snapshots", "README.md")),
	}
	if len(w.steps) != 6 {
		t.Fatalf("the README has %d blocks of commands and the test knows 6: load, install, fill, snapshot, drop, remove", len(w.steps))
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := runShell(context.Background(), t, c, w.dir, `kubectl get pvc,pv,volumesnapshots,volumesnapshotcontents -A || true
				kubectl describe volumesnapshots -A || true`, logs)
			t.Log(out)
		}
		out, err := runShell(context.Background(), t, c, w.dir, w.steps[5])
		if err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	running := w.run(t, w.steps[0], w.steps[1])
	if n := strings.Count(running, " Running "); n != 2 {
		t.Fatalf("%d snapshot-controllers are running, want 2:\n%s", n, running)
	}
	w.api = w.SnapshotClient(t)
	w.CreateClass(t, nil)
	w.CreateSnapshotClass(t, w.api, nil)
	return w
}

// run runs commands, of the README or others, and returns what they said.
func (w *snapshotNodeWorld) run(t *testing.T, commands ...string) string {
	t.Helper()
	out, err := runShell(t.Context(), t, w.Cluster, w.dir, commands...)
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return out
}

// testReadme is what the README of the example says, step by step, with a manifest
// that knows nothing of this program.
func (w *snapshotNodeWorld) testReadme(t *testing.T) {
	t.Parallel()
	out := w.run(t, w.steps[2], w.steps[3], `echo "$(kubectl exec reader -- df -m /data | awk 'END {print $2}') MiB"`)
	if !strings.Contains(out, "\nkept\n") {
		t.Errorf("the restored volume does not have the file: %s", out)
	}
	var size int
	if _, err := fmt.Sscanf(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:], "%d MiB", &size); err != nil || size < 9000 {
		t.Errorf("the filesystem of the claim for 10Gi has %d MiB (%v): %s", size, err, out)
	}
}
