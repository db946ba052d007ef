package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

// snapshotNodeWorld has a real node, with the local driver, snapshot-controller and
// csi-snapshotter as pods.
type snapshotNodeWorld struct {
	localWorld
	api    client.Client
	readme *readmeRunner
}

// logs shows the logs of the roles.
const logs = `kubectl -n kube-system logs deploy/snapshot-controller --all-pods --tail=100 || true
	kubectl -n holdfast-system logs deploy/local-driver --all-containers --tail=100 || true`

// newSnapshotNode installs everything as the README of the example says. The cluster
// is the test's own, because the snapshot-controller works on all namespaces. It
// allows claims to name a source in another namespace.
func newSnapshotNode(t *testing.T) *snapshotNodeWorld {
	t.Helper()
	c := cluster.New(t, cluster.Own(), cluster.WithNodes(1), cluster.WithAPIServerArgs("--feature-gates=CrossNamespaceVolumeDataSource=true"))
	w := &snapshotNodeWorld{
		localWorld: localWorld{&world.World{Cluster: c, Name: "local.holdfast.io"}},
		readme:     newReadmeRunner(t, c, "snapshots", "load", "install", "fill", "snapshot", "drop", "remove"),
	}
	w.readme.cleanUpWith(t, `kubectl get pvc,pv,volumesnapshots,volumesnapshotcontents -A || true
		kubectl describe volumesnapshots -A || true
		`+logs, w.readme.steps[5])
	running := w.readme.run(t, w.readme.steps[0], w.readme.steps[1])
	if n := strings.Count(running, " Running "); n != 2 {
		t.Fatalf("%d snapshot-controllers are running, want 2:\n%s", n, running)
	}
	w.api = w.SnapshotClient(t)
	w.CreateClass(t, nil)
	w.CreateSnapshotClass(t, w.api, nil)
	return w
}

// testReadme follows the README of the example, with a manifest that was not written
// for this program.
func (w *snapshotNodeWorld) testReadme(t *testing.T) {
	t.Parallel()
	out := w.readme.run(t, w.readme.steps[2], w.readme.steps[3], `echo "$(kubectl exec reader -- df -m /data | awk 'END {print $2}') MiB"`)
	if !strings.Contains(out, "\nkept\n") {
		t.Errorf("the restored volume does not have the file: %s", out)
	}
	var size int
	if _, err := fmt.Sscanf(out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:], "%d MiB", &size); err != nil || size < 9000 {
		t.Errorf("the filesystem of the claim for 10Gi has %d MiB (%v): %s", size, err, out)
	}
}
