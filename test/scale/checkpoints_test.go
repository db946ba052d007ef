package scale

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/world"
)

const (
	// checkpointsThere is how many Checkpoints there are, and checkpointsKept how many of them
	// a policy keeps.
	checkpointsThere, checkpointsKept = 1000, 500
	// operatorMemoryBudget is the largest memory of the operator among them: at its start, when
	// it decodes all, and when retention reads all of them again.
	operatorMemoryBudget = 60 << 20
)

// The operator among many Checkpoints takes little memory, also while it deletes the expired
// ones.
func TestCheckpointOperatorIsSmall(t *testing.T) {
	t.Parallel()
	c := cluster.NewAPIOnly(t)
	api := world.InstallCheckpointCRDs(t, c)
	policy := &v1alpha1.CheckpointPolicy{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	if err := api.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	inParallel(checkpointsThere, func(n int) {
		if err := createReadyCheckpoint(t.Context(), api, c.Namespace, n); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	p := world.StartCheckpointOperator(t, c.Kubeconfig)
	waitReadyCheckpoints(t, api, checkpointsThere)
	t.Logf("peak memory among %d Checkpoints: %d MiB", checkpointsThere, peakMemory(t, p.PID())>>20)

	keep := int32(checkpointsKept)
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(policy), policy); err != nil {
		t.Fatal(err)
	}
	before := client.MergeFrom(policy.DeepCopy())
	policy.Spec.Retention = &v1alpha1.CheckpointRetention{MaxCount: &keep}
	if err := api.Patch(t.Context(), policy, before); err != nil {
		t.Fatal(err)
	}
	waitReadyCheckpoints(t, api, checkpointsKept)
	peak := peakMemory(t, p.PID())
	t.Logf("peak memory after %d of them were deleted: %d MiB; now %s", checkpointsThere-checkpointsKept, peak>>20, memoryOf(t, p.PID()))
	if peak > operatorMemoryBudget {
		t.Errorf("up to %d MiB were resident among %d Checkpoints, more than %d", peak>>20, checkpointsThere, operatorMemoryBudget>>20)
	}
}

// waitReadyCheckpoints waits until the status of the policy says how many there are.
func waitReadyCheckpoints(t *testing.T, api client.Client, want int32) {
	t.Helper()
	world.Eventually(t, func(ctx context.Context) error {
		p := &v1alpha1.CheckpointPolicy{}
		if err := api.Get(ctx, client.ObjectKey{Name: "all"}, p); err != nil {
			return err
		}
		if p.Status.ReadyCheckpoints != want {
			return fmt.Errorf("the policy has %d ready Checkpoints, want %d", p.Status.ReadyCheckpoints, want)
		}
		return nil
	})
}

// createReadyCheckpoint creates a Checkpoint with all that an agent writes into its status.
func createReadyCheckpoint(ctx context.Context, api client.Client, namespace string, n int) error {
	c := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("web-%04d", n), Labels: map[string]string{"app.kubernetes.io/name": "web"}},
		Spec:       v1alpha1.CheckpointSpec{PolicyRef: "all", Target: v1alpha1.CheckpointTarget{PodName: "web-6d4cf56db6-x2x7p", ContainerName: "main"}},
	}
	if err := api.Create(ctx, c); err != nil {
		return err
	}
	taken := metav1.NewMicroTime(c.CreationTimestamp.Add(time.Duration(n) * time.Millisecond))
	completed := metav1.NewTime(taken.Time)
	bucket := &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendS3, S3: &v1alpha1.S3Storage{
		Endpoint: "https://s3.example.com", Bucket: "checkpoints", Prefix: "team/web/", CredentialsSecretRef: &v1alpha1.SecretReference{Name: "bucket"},
	}}
	before := client.MergeFrom(c.DeepCopy())
	c.Status = v1alpha1.CheckpointStatus{
		NodeName: "node-1", SourceNode: "node-1", PodUID: c.UID, Storage: bucket, StorageNamespace: namespace,
		Workload: &v1alpha1.Workload{APIVersion: "apps/v1", Kind: "Deployment", Name: "web"},
		Containers: []v1alpha1.ContainerCheckpoint{{
			Name: "main", ContainerID: "containerd://" + string(c.UID) + string(c.UID), Image: "registry.example.com/team/web:1.2.3", ImageDigest: "sha256:" + string(c.UID) + string(c.UID),
			RawBytes: 1 << 30, StoredBytes: 1 << 28, Digest: "sha256:" + string(c.UID) + string(c.UID), Location: "s3://checkpoints/team/web/" + string(c.UID) + "/main.ckpt",
		}},
		Engine: "runc", Step: "FreezeCopy", Frozen: "683ms", StoredSize: "256.0Mi", Attempts: 1,
		StartTime: &completed, CheckpointTime: &taken, CompletionTime: &completed,
		Environment: &v1alpha1.Environment{Runtime: "containerd://2.1.9", OCIRuntime: "runc 1.3.6", CRIU: "4.1.1", Kernel: "6.12.48+deb13-amd64", Architecture: "amd64", Cgroup: "v2",
			CPUFeatures: "abm adx aes avx avx2 bmi1 bmi2 clflushopt clwb cmov cx16 cx8 f16c fma fpu fsgsbase fxsr lahf_lm mmx movbe pclmulqdq pni popcnt rdrand rdseed rdtscp sse sse2 sse4_1 sse4_2 ssse3 xsave"},
	}
	meta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompleted, Message: "the data are stored and were read back",
	})
	return api.Status().Patch(ctx, c, before)
}
