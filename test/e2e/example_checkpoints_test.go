package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

const checkpointNamespace = "checkpoint-operator-system"

// checkpointWorld is a cluster in which the example is applied.
type checkpointWorld struct {
	*readmeRunner
	localWorld
	api client.Client
	// use, manifest, schedule and remove are the other steps of the example's README.
	use, manifest, schedule, remove string
	bucket                          *v1alpha1.CheckpointStorage // of tests that start one
}

// newCheckpointWorld follows the README of the example up to "Install".
func newCheckpointWorld(t *testing.T, nodes int) *checkpointWorld {
	t.Helper()
	r := newReadmeRunner(t, cluster.New(t, cluster.WithNodes(nodes)), "checkpoints", "load", "apply", "use", "manifest", "schedule", "remove")
	w := &checkpointWorld{readmeRunner: r, localWorld: localWorld{&world.World{Cluster: r.Cluster}}}
	load, apply := r.steps[0], r.steps[1]
	w.use, w.manifest, w.schedule, w.remove = r.steps[2], r.steps[3], r.steps[4], r.steps[5]
	r.cleanUpWith(t, `kubectl get ckpt,ckptnode,ckptpolicy,ckptsched -A -o yaml || true
		kubectl -n checkpoint-operator-system describe pod || true
		kubectl -n checkpoint-operator-system describe pvc || true
		kubectl -n checkpoint-operator-system logs deploy/checkpoint-operator --all-pods --tail=50 || true
		kubectl -n checkpoint-operator-system logs daemonset/checkpoint-agent --all-pods --tail=100 || true`, w.remove)
	r.run(t, load, apply)
	scheme := runtime.NewScheme()
	must(t, v1alpha1.AddToScheme(scheme))
	var err error
	w.api, err = client.New(w.Config, client.Options{Scheme: scheme})
	must(t, err)
	return w
}

// The test follows the README of the example, with a manifest that was not written for
// this program, and then checkpoints the same pod in other ways.
func TestCheckpointExampleWorksAsItsReadmeSays(t *testing.T) {
	t.Parallel()
	w := newCheckpointWorld(t, 1)
	shown := w.run(t, w.use)
	c := w.waitReady(t, "my-app-local")
	for _, want := range []string{"CheckpointCompleted", c.Status.Frozen, c.Status.StoredSize, c.Status.Containers[0].Location} {
		if !strings.Contains(shown, want) {
			t.Errorf("kubectl get does not show %q but: %s", want, shown)
		}
	}
	t.Logf("engine %s, step %s (%s), frozen %s, stored %s", c.Status.Engine, c.Status.Step, c.Status.StepReason, c.Status.Frozen, c.Status.StoredSize)
	w.checkStored(t, c)
	if shown := w.run(t, w.manifest); !strings.Contains(shown, "credentialsSecretRef") {
		t.Errorf("kubectl describe does not say how to give credentials: %s", shown)
	}

	if shown := w.run(t, w.schedule); strings.Count(shown, "CheckpointCompleted") != 2 || !strings.Contains(shown, "Scheduled") {
		t.Errorf("the schedule has not checkpointed both pods: %s", shown)
	}

	t.Run("on a schedule", w.testSchedule)
	t.Run("encrypted", w.testEncryption)
	t.Run("in a bucket", w.testBucket)
	t.Run("in volumes", w.testVolumes)
	t.Run("all containers of a pod", w.testAllContainers)
	t.Run("another namespace's pod", w.testReference)
	t.Run("the agent is killed", w.testKilledAgent)
	t.Run("permissions", func(t *testing.T) {
		w.checkPermissions(t, "checkpoint-agent",
			permission{"create", "nodes/checkpoint", ""},                    // The kubelet checks it.
			permission{"patch", "events", ""},                               // of an event that repeats
			permission{"list", "checkpointnodes", "checkpoint.example.com"}, // once an hour
			permission{"list", "checkpointpolicies", "checkpoint.example.com"},
			// Restores; see TestOnTwoNodesPodsAreRestored.
			permission{"get", "checkpointpolicies", "checkpoint.example.com"},
			permission{"patch", "pods/status", ""},
			permission{"get", "persistentvolumes", ""},
			permission{"list", "referencegrants", "gateway.networking.k8s.io"},
		)
		w.checkPermissions(t, "checkpoint-operator-controller-manager",
			permission{"patch", "events", ""},
			permission{"get", "checkpointpolicies", "checkpoint.example.com"},
			permission{"get", "nodes", ""}, // of a node without an agent
			permission{"get", "jobs", "batch"},
			permission{"list", "events", ""},                                   // about a volume that is not mounted for long
			permission{"list", "referencegrants", "gateway.networking.k8s.io"}, // The cluster may lack the kind.
			permission{"get", "checkpoints", "checkpoint.example.com"},         // one that a process created before it crashed
		)
	})

	w.run(t, w.remove)
	if left := w.Run(t, w.Nodes[0], "sh", "-c", "find /var/lib/holdfast/node /var/lib/holdfast/checkpoints -name '*.ckpt' -o -name '*.img'; grep ' /var/lib/holdfast/node' /proc/mounts || true"); left != "" {
		t.Errorf("the node still has %s", left)
	}
}

// checkStored checks that the archive of a Checkpoint is on the node, for root only.
func (w *checkpointWorld) checkStored(t *testing.T, c *v1alpha1.Checkpoint) (path string) {
	t.Helper()
	stored := c.Status.Containers[0]
	_, path, _ = strings.Cut(stored.Location, ":")
	if got, want := w.Run(t, w.Nodes[0], "stat", "-c", "%a %s", path), fmt.Sprintf("600 %d", stored.StoredBytes); strings.TrimSpace(got) != want || stored.StoredBytes == 0 {
		t.Errorf("the archive has mode and size %q, want %q", got, want)
	}
	w.checkDigest(t, &stored)
	return path
}

// checkDigest checks that the archive of a container on the node has the digest of the status.
func (w *checkpointWorld) checkDigest(t *testing.T, of *v1alpha1.ContainerCheckpoint) {
	t.Helper()
	_, path, _ := strings.Cut(of.Location, ":")
	if got := w.Run(t, w.Nodes[0], "sha256sum", path); "sha256:"+strings.Fields(got)[0] != of.Digest {
		t.Errorf("the archive of container %s has the digest %s, and the status says %s", of.Name, got, of.Digest)
	}
}

// create creates a Checkpoint of the example's pod on the node.
func (w *checkpointWorld) create(t *testing.T, namespace, name string, change func(*v1alpha1.CheckpointSpec)) {
	t.Helper()
	c := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: v1alpha1.CheckpointSpec{
			Target:  v1alpha1.CheckpointTarget{PodName: "my-app-pod-0", Namespace: "default"},
			Storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal},
		},
	}
	change(&c.Spec)
	must(t, w.api.Create(t.Context(), c))
	t.Cleanup(func() {
		w.kubectl(t, "-n", namespace, "delete", "checkpoint", name, "--wait", "--ignore-not-found", "--timeout="+world.Timeout.String())
	})
}

// waitReady waits until a Checkpoint is ready.
func (w *checkpointWorld) waitReady(t *testing.T, name string) *v1alpha1.Checkpoint {
	t.Helper()
	return w.waitStatus(t, client.ObjectKey{Namespace: checkpointNamespace, Name: name}, func(s *v1alpha1.CheckpointStatus) bool {
		return meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionReady)
	})
}

func (w *checkpointWorld) waitStatus(t *testing.T, key client.ObjectKey, is func(*v1alpha1.CheckpointStatus) bool) *v1alpha1.Checkpoint {
	t.Helper()
	c := &v1alpha1.Checkpoint{}
	world.Eventually(t, func(ctx context.Context) error {
		if err := w.api.Get(ctx, key, c); err != nil {
			return err
		}
		if !is(&c.Status) {
			return fmt.Errorf("the status of Checkpoint %s is %+v", key, c.Status)
		}
		return nil
	})
	return c
}

// testEncryption: the archive can be read with the key only, and has nothing in plain text.
func (w *checkpointWorld) testEncryption(t *testing.T) {
	key := strings.Repeat("0123456789abcdef", 4)
	w.kubectl(t, "-n", checkpointNamespace, "create", "secret", "generic", "checkpoint-key", "--from-literal=key="+key)
	t.Cleanup(func() { w.kubectl(t, "-n", checkpointNamespace, "delete", "secret", "checkpoint-key") })
	w.create(t, checkpointNamespace, "encrypted", func(s *v1alpha1.CheckpointSpec) {
		s.Encryption = &v1alpha1.Encryption{SecretRef: v1alpha1.SecretReference{Name: "checkpoint-key"}}
	})
	path := w.checkStored(t, w.waitReady(t, "encrypted"))
	copied := filepath.Join(t.TempDir(), "main.ckpt")
	must(t, os.WriteFile(copied, []byte(w.Run(t, w.Nodes[0], "cat", path)), 0o600))
	keyFile := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(keyFile, []byte(key), 0o600))
	programs, err := world.Programs()
	must(t, err)
	verify := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "holdfast"), append([]string{"archive", "verify", copied}, args...)...).CombinedOutput()
		return string(out), err
	}
	if out, err := verify("--key-file", keyFile); err != nil {
		t.Errorf("verifying with the key: %v: %s", err, out)
	}
	var failed *exec.ExitError
	if out, err := verify(); !errors.As(err, &failed) || !strings.Contains(out, "key") {
		t.Errorf("verifying without the key: %v: %s", err, out)
	}
}

// testReference: outside of the operator's namespace, the pod's namespace has to agree. The
// operator of the manifest serves only its own namespace, so the Checkpoint is not touched.
func (w *checkpointWorld) testReference(t *testing.T) {
	w.kubectl(t, "-n", checkpointNamespace, "set", "env", "deploy/checkpoint-operator", "WATCH_NAMESPACE=")
	w.kubectl(t, "-n", checkpointNamespace, "rollout", "status", "deploy/checkpoint-operator", "--timeout="+world.Timeout.String())
	w.kubectl(t, "create", "namespace", "tenant")
	t.Cleanup(func() { w.kubectl(t, "delete", "namespace", "tenant", "--wait") })
	w.create(t, "tenant", "foreign", func(*v1alpha1.CheckpointSpec) {})
	c := w.waitStatus(t, client.ObjectKey{Namespace: "tenant", Name: "foreign"}, func(s *v1alpha1.CheckpointStatus) bool { return len(s.Conditions) > 0 })
	if ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady); ready.Reason != v1alpha1.ReasonReferenceMissing || c.Status.NodeName != "" {
		t.Errorf("the status is %+v", c.Status)
	}
}

// testSchedule: the Checkpoints of the next run replace those of the first one.
func (w *checkpointWorld) testSchedule(t *testing.T) {
	label := client.MatchingLabels{"schedule.holdfast.io/name": "nightly"}
	var first, now v1alpha1.CheckpointList
	must(t, w.api.List(t.Context(), &first, client.InNamespace(checkpointNamespace), label))
	w.kubectl(t, "-n", checkpointNamespace, "patch", "checkpointschedule", "nightly", "--type=merge", "-p", `{"spec":{"trigger":"again"}}`)
	w.kubectl(t, "-n", checkpointNamespace, "wait", "checkpointschedule/nightly", "--for=jsonpath={.status.lastTrigger}=again", "--timeout="+world.Timeout.String())
	world.Eventually(t, func(ctx context.Context) error {
		now = v1alpha1.CheckpointList{}
		if err := w.api.List(ctx, &now, client.InNamespace(checkpointNamespace), label); err != nil {
			return err
		}
		if len(now.Items) != 2 || slices.ContainsFunc(now.Items, func(c v1alpha1.Checkpoint) bool {
			return slices.ContainsFunc(first.Items, func(before v1alpha1.Checkpoint) bool { return before.Name == c.Name })
		}) {
			return fmt.Errorf("the schedule has %d Checkpoints, some of the first run", len(now.Items))
		}
		return nil
	})
}

// testKilledAgent: whatever the agent was doing, the container goes on, and the Checkpoint
// becomes ready by the next agent.
func (w *checkpointWorld) testKilledAgent(t *testing.T) {
	w.create(t, checkpointNamespace, "interrupted", func(*v1alpha1.CheckpointSpec) {})
	key := client.ObjectKey{Namespace: checkpointNamespace, Name: "interrupted"}
	w.waitStatus(t, key, func(s *v1alpha1.CheckpointStatus) bool { return s.Attempts > 0 })
	// Without a grace period the kubelet kills it.
	w.kubectl(t, "-n", checkpointNamespace, "delete", "pod", "-l", "app=checkpoint-agent", "--grace-period=0", "--force")
	w.checkStored(t, w.waitReady(t, "interrupted"))
	w.waitCounting(t, "my-app-pod-0")
}
