package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/proxy"
	"github.com/holdfast-io/holdfast/test/world"
)

const retentionNode = "retention-node"

// checkpointAPI is an API server with the operator and the agent of a node on which no
// containers run: the test makes the Checkpoints.
type checkpointAPI struct {
	*cluster.Cluster
	api     client.Client
	counter *proxy.Counter // of the operator's requests
	dir     string         // of backend local
}

func newCheckpointAPI(t *testing.T) *checkpointAPI {
	c := cluster.NewAPIOnly(t)
	w := &checkpointAPI{Cluster: c, api: world.InstallCheckpointCRDs(t, c), counter: proxy.NewCounter(t, c.Config), dir: t.TempDir()}
	_, err := c.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: retentionNode}}, metav1.CreateOptions{})
	must(t, err)
	world.StartCheckpointOperator(t, w.counter.Kubeconfig)
	world.StartCheckpointAgent(t, c.Kubeconfig, retentionNode, "--local-path="+w.dir, "--orphan-interval=2s")
	world.Eventually(t, func(ctx context.Context) error {
		return w.api.Get(ctx, client.ObjectKey{Name: retentionNode}, &v1alpha1.CheckpointNode{})
	})
	return w
}

// createPolicy creates a policy.
func (w *checkpointAPI) createPolicy(t *testing.T, name string, keep *v1alpha1.CheckpointRetention) {
	t.Helper()
	must(t, w.api.Create(t.Context(), &v1alpha1.CheckpointPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.CheckpointPolicySpec{Retention: keep},
	}))
}

// changePolicy changes how many a policy keeps.
func (w *checkpointAPI) changePolicy(t *testing.T, name string, count int32) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"retention":{"maxCount":%d}}}`, count)
	must(t, w.api.Patch(t.Context(), &v1alpha1.CheckpointPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.RawPatch(types.MergePatchType, patch)))
}

func keepCount(count int32) *v1alpha1.CheckpointRetention {
	return &v1alpha1.CheckpointRetention{MaxCount: &count}
}

// taken is a Checkpoint of a Deployment. Of two of a workload, the one with the larger number
// is newer.
type taken struct {
	workload string
	number   int
}

// create creates a Checkpoint that is ready, with data on the node.
func (w *checkpointAPI) create(t *testing.T, policy, name string, of taken, changes ...func(*v1alpha1.Checkpoint)) *v1alpha1.Checkpoint {
	t.Helper()
	c := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.Namespace, Name: name, Finalizers: []string{v1alpha1.Finalizer}},
		Spec: v1alpha1.CheckpointSpec{
			PolicyRef: policy, Target: v1alpha1.CheckpointTarget{PodName: of.workload + "-0"},
			Storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal},
		},
	}
	for _, change := range changes {
		change(c)
	}
	must(t, w.api.Create(t.Context(), c))
	must(t, os.MkdirAll(filepath.Dir(w.dataOf(c)), 0o700))
	must(t, os.WriteFile(w.dataOf(c), []byte("memory"), 0o600))
	at := metav1.NewMicroTime(c.CreationTimestamp.Add(time.Duration(of.number) * time.Second))
	status := client.MergeFrom(c.DeepCopy())
	c.Status = v1alpha1.CheckpointStatus{
		NodeName: retentionNode, SourceNode: retentionNode, Storage: c.Spec.Storage, StorageNamespace: c.Namespace, CheckpointTime: &at,
		Workload:   &v1alpha1.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: of.workload},
		Containers: []v1alpha1.ContainerCheckpoint{{Name: "main", Location: "there"}},
	}
	meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompleted})
	must(t, w.api.Status().Patch(t.Context(), c, status))
	return c
}

func (w *checkpointAPI) dataOf(c *v1alpha1.Checkpoint) string {
	return filepath.Join(w.dir, string(c.UID), "main.ckpt")
}

// waitLeft waits until exactly the named Checkpoints of a policy exist, and their data and
// no others'.
func (w *checkpointAPI) waitLeft(t *testing.T, policy, want string) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		var list v1alpha1.CheckpointList
		if err := w.api.List(ctx, &list, client.MatchingFields{"spec.policyRef": policy}); err != nil {
			return err
		}
		var names []string
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			return fmt.Errorf("policy %s has %q, want %q", policy, got, want)
		}
		return nil
	})
}

// wantData checks whether the data of a Checkpoint are on the node.
func (w *checkpointAPI) wantData(t *testing.T, c *v1alpha1.Checkpoint, want bool) {
	t.Helper()
	if _, err := os.Stat(w.dataOf(c)); errors.Is(err, fs.ErrNotExist) == want {
		t.Errorf("the data of %s: %v", c.Name, err)
	}
}

// waitPolicy waits until the status of a policy is as it should be.
func (w *checkpointAPI) waitPolicy(t *testing.T, name string, check func(*v1alpha1.CheckpointPolicyStatus) bool) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		p := &v1alpha1.CheckpointPolicy{}
		if err := w.api.Get(ctx, client.ObjectKey{Name: name}, p); err != nil {
			return err
		}
		if p.Status.ObservedGeneration != p.Generation || !check(&p.Status) {
			return fmt.Errorf("the status of CheckpointPolicy %s is %+v", name, p.Status)
		}
		return nil
	})
}

func TestCheckpointAPI(t *testing.T) {
	t.Parallel()
	w := newCheckpointAPI(t)
	t.Run("validation", w.testValidation)
	for name, test := range map[string]func(*testing.T){
		"the data of surplus Checkpoints go, then they":  w.testSurplus,
		"a deleted policy deletes nothing":               w.testDeletedPolicy,
		"a store that cannot be used is said":            w.testUnusableStore,
		"old Checkpoints and the next one are known":     w.testAge,
		"data without a Checkpoint are reported":         w.testOrphans,
		"a Checkpoint costs few requests when it is old": w.testCost,
	} {
		t.Run(name, test)
	}
}

func (w *checkpointAPI) testSurplus(t *testing.T) {
	w.createPolicy(t, "surplus", keepCount(2))
	first := w.create(t, "surplus", "first", taken{"web", 1})
	other := w.create(t, "surplus", "other", taken{"db", 1})
	second := w.create(t, "surplus", "second", taken{"web", 2})
	third := w.create(t, "surplus", "third", taken{"web", 3})
	w.waitLeft(t, "surplus", "other second third")
	w.wantData(t, first, false)
	for _, c := range []*v1alpha1.Checkpoint{other, second, third} {
		w.wantData(t, c, true)
	}
	(&world.World{Cluster: w.Cluster}).WaitEvent(t, "CheckpointPolicy/surplus", "Normal", "CheckpointsExpired", w.Namespace+"/first (2 newer ones are kept)")

	w.changePolicy(t, "surplus", 1)
	w.waitLeft(t, "surplus", "other third")
	w.wantData(t, second, false)
	w.waitPolicy(t, "surplus", func(s *v1alpha1.CheckpointPolicyStatus) bool {
		return s.ReadyCheckpoints == 2 && s.Workloads == 2 && meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionRetentionApplied)
	})
}

func (w *checkpointAPI) testDeletedPolicy(t *testing.T) {
	w.createPolicy(t, "deleted", keepCount(2))
	w.create(t, "deleted", "a", taken{"web", 1})
	w.create(t, "deleted", "b", taken{"web", 2})
	w.waitPolicy(t, "deleted", func(s *v1alpha1.CheckpointPolicyStatus) bool { return s.ReadyCheckpoints > 0 })
	must(t, w.api.Delete(t.Context(), &v1alpha1.CheckpointPolicy{ObjectMeta: metav1.ObjectMeta{Name: "deleted"}}))
	for _, name := range []string{"c", "d"} {
		w.create(t, "deleted", name, taken{"web", 3})
	}
	// What happens later with another policy shows that the operator has seen all of that.
	w.createPolicy(t, "later", keepCount(1))
	w.create(t, "later", "x", taken{"web", 1})
	w.create(t, "later", "y", taken{"web", 2})
	w.waitLeft(t, "later", "y")
	w.waitLeft(t, "deleted", "a b c d")
}

// testUnusableStore: an expired Checkpoint stays until its data are deleted, and both it and
// its policy say why.
func (w *checkpointAPI) testUnusableStore(t *testing.T) {
	w.createPolicy(t, "unusable", keepCount(1))
	blocked := filepath.Join(w.dir, "blocked")
	must(t, os.WriteFile(blocked, nil, 0o600)) // where the directory of the store must be
	held := w.create(t, "unusable", "held", taken{"web", 1}, func(c *v1alpha1.Checkpoint) {
		c.Spec.Storage.Local = &v1alpha1.LocalStorage{Path: blocked}
	})
	w.create(t, "unusable", "newer", taken{"web", 2})
	w.waitPolicy(t, "unusable", func(s *v1alpha1.CheckpointPolicyStatus) bool {
		c := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionRetentionApplied)
		return c != nil && c.Status == metav1.ConditionFalse && c.Reason == v1alpha1.ReasonDataNotDeleted && strings.Contains(c.Message, w.Namespace+"/held: ")
	})
	must(t, w.api.Get(t.Context(), client.ObjectKeyFromObject(held), held))
	if held.DeletionTimestamp.IsZero() || held.Status.WaitingFor != "User" {
		t.Errorf("the Checkpoint is deleted at %v and waits for %s", held.DeletionTimestamp, held.Status.WaitingFor)
	}
	must(t, os.Remove(blocked))
	w.waitLeft(t, "unusable", "newer")
	w.waitPolicy(t, "unusable", func(s *v1alpha1.CheckpointPolicyStatus) bool {
		return meta.IsStatusConditionTrue(s.Conditions, v1alpha1.ConditionRetentionApplied) && s.ReadyCheckpoints == 1
	})
}

func (w *checkpointAPI) testAge(t *testing.T) {
	w.createPolicy(t, "age", &v1alpha1.CheckpointRetention{MaxAge: &metav1.Duration{Duration: time.Hour}, MinCount: ptr.To(int32(1))})
	older := w.create(t, "age", "age-older", taken{"web", 1})
	w.create(t, "age", "age-newer", taken{"web", 2})
	w.waitPolicy(t, "age", func(s *v1alpha1.CheckpointPolicyStatus) bool {
		next := s.NextExpirationTime
		return s.ReadyCheckpoints == 2 && next != nil && next.Time.Equal(older.Status.CheckpointTime.Add(time.Hour).Truncate(time.Second))
	})
}

// testCost: the requests of the operator do not depend on how many Checkpoints are kept.
func (w *checkpointAPI) testCost(t *testing.T) {
	const workloads = 20
	w.createPolicy(t, "cost", keepCount(2))
	for i := range workloads {
		workload := fmt.Sprintf("web-%02d", i)
		w.create(t, "cost", workload+"-a", taken{workload, 1})
		w.create(t, "cost", workload+"-b", taken{workload, 2})
	}
	w.waitPolicy(t, "cost", func(s *v1alpha1.CheckpointPolicyStatus) bool { return s.ReadyCheckpoints == 2*workloads })
	w.counter.Reset()
	w.changePolicy(t, "cost", 1)
	w.waitPolicy(t, "cost", func(s *v1alpha1.CheckpointPolicyStatus) bool { return s.ReadyCheckpoints == workloads })
	counts := w.counter.Reset()
	t.Logf("for each of %d expired Checkpoints: %s", workloads, counts.PerObject(workloads))
	// One deletion each; together a few reads, writes of the status and an event.
	if got := counts.Total(); got > workloads+8 {
		t.Errorf("%d requests for %d expired Checkpoints: %v", got, workloads, counts)
	}
}

// testOrphans: the agent reports old data that belong to no Checkpoint, and only these.
func (w *checkpointAPI) testOrphans(t *testing.T) {
	owned := w.create(t, "none", "owned", taken{"web", 1})
	orphan := &v1alpha1.Checkpoint{ObjectMeta: metav1.ObjectMeta{UID: "6b1ff7ab-6d2e-4d4b-9a40-0d0a4d2c3c11"}}
	must(t, os.MkdirAll(filepath.Dir(w.dataOf(orphan)), 0o700))
	must(t, os.WriteFile(w.dataOf(orphan), make([]byte, 5000), 0o600))
	for _, c := range []*v1alpha1.Checkpoint{owned, orphan} {
		old := time.Now().Add(-2 * time.Hour)
		must(t, os.Chtimes(w.dataOf(c), old, old))
	}
	w.waitOrphans(t, metav1.ConditionTrue, []v1alpha1.OrphanedData{{Location: retentionNode + ":" + w.dataOf(orphan), Bytes: 5000}})
	must(t, os.RemoveAll(filepath.Dir(w.dataOf(orphan))))
	w.waitOrphans(t, metav1.ConditionFalse, nil)
}

// waitOrphans waits until the agent reports exactly these orphans.
func (w *checkpointAPI) waitOrphans(t *testing.T, status metav1.ConditionStatus, want []v1alpha1.OrphanedData) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		n := &v1alpha1.CheckpointNode{}
		if err := w.api.Get(ctx, client.ObjectKey{Name: retentionNode}, n); err != nil {
			return err
		}
		for i := range n.Status.Orphans {
			n.Status.Orphans[i].ModifiedTime = nil
		}
		if !meta.IsStatusConditionPresentAndEqual(n.Status.Conditions, v1alpha1.ConditionOrphanedData, status) || !slices.Equal(n.Status.Orphans, want) {
			return fmt.Errorf("the status of the CheckpointNode is %+v", n.Status)
		}
		return nil
	})
}
