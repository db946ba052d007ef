package world

import (
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
)

// InstallCheckpointCRDs installs the CRDs of checkpoints in a cluster of the test's own, and
// returns a client for their objects.
func InstallCheckpointCRDs(t testing.TB, c *cluster.Cluster) client.WithWatch {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	api, err := client.NewWithWatch(c.Config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	all, err := printedCRDs(t.Context(), v1alpha1.GroupVersion.Group)
	if err != nil {
		t.Fatal(err)
	}
	applyCRDs(t, api, all)
	return api
}

// StartCheckpointOperator starts role checkpoint-operator for all namespaces; see
// [World.StartProvisioner]. It needs a cluster of the test's own.
func StartCheckpointOperator(t testing.TB, kubeconfig string, args ...string) *Process {
	t.Helper()
	return startForTest(t, nil, "checkpoint-operator", append([]string{
		"--kubeconfig=" + kubeconfig, "--health-probe-bind-address=0", "--metrics-bind-address=0",
	}, args...))
}

// StartCheckpointAgent starts role node for a node that may not exist, with engine kubelet
// only; see [World.StartProvisioner]. It can delete Checkpoints, and make none.
func StartCheckpointAgent(t testing.TB, kubeconfig, node string, args ...string) *Process {
	t.Helper()
	dir := t.TempDir()
	return startForTest(t, []string{"NODE_NAME=" + node}, "node", append([]string{
		"--kubeconfig=" + kubeconfig, "--health-probe-bind-address=0", "--metrics-bind-address=0",
		"--engines=kubelet", "--kubelet-address=127.0.0.1:1", "--state-dir=" + dir + "/state", "--kubelet-checkpoint-dir=" + dir + "/kubelet",
	}, args...))
}
