package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/test/cluster"
	"github.com/holdfast-io/holdfast/test/s3server"
	"github.com/holdfast-io/holdfast/test/world"
)

// bucketPod is a pod with an S3 server that has the bucket "checkpoints", and a container
// to look at the server's files. It is on the last node: tests take the power off the first.
const bucketPod = `
apiVersion: v1
kind: Pod
metadata: {name: s3, namespace: default}
spec:
  nodeName: %[5]s
  terminationGracePeriodSeconds: 0
  initContainers:
  - {name: bucket, image: %[1]s, command: [mkdir, /data/checkpoints], volumeMounts: &data [{name: data, mountPath: /data}]}
  containers:
  - name: server
    image: devcluster.local/versitygw:1
    command: [/versitygw, --port, ":7070", --quiet, posix, /data]
    env: [{name: ROOT_ACCESS_KEY, value: %[2]s}, {name: ROOT_SECRET_KEY, value: %[3]s}]
    readinessProbe: {tcpSocket: {port: 7070}, periodSeconds: 1}
    volumeMounts: *data
  - {name: look, image: %[1]s, command: [sleep, "100000"], volumeMounts: *data}
  volumes: [{name: data, emptyDir: {medium: Memory, sizeLimit: %[4]s}}]
`

// startBucket starts the S3 server, with so much room, and returns how to store in its bucket.
func (w *checkpointWorld) startBucket(t *testing.T, size string) *v1alpha1.CheckpointStorage {
	t.Helper()
	program, err := s3server.Program()
	must(t, err)
	w.LoadImage(t, "devcluster.local/versitygw:1", map[string]string{"/versitygw": program})
	manifest := filepath.Join(t.TempDir(), "s3.yaml")
	must(t, os.WriteFile(manifest, fmt.Appendf(nil, bucketPod, cluster.BusyboxImage, s3server.AccessKeyID, s3server.SecretAccessKey, size, w.Nodes[len(w.Nodes)-1]), 0o600))
	w.kubectl(t, "apply", "-f", manifest)
	t.Cleanup(func() { w.kubectl(t, "delete", "-f", manifest, "--wait") })
	w.kubectl(t, "wait", "pod/s3", "--for=condition=Ready", "--timeout="+world.Timeout.String())
	address := w.kubectl(t, "get", "pod", "s3", "-o", "jsonpath={.status.podIP}")
	w.kubectl(t, "-n", checkpointNamespace, "create", "secret", "generic", "bucket",
		"--from-literal=accessKeyID="+s3server.AccessKeyID, "--from-literal=secretAccessKey="+s3server.SecretAccessKey)
	t.Cleanup(func() { w.kubectl(t, "-n", checkpointNamespace, "delete", "secret", "bucket") })

	return &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendS3, S3: &v1alpha1.S3Storage{
		Endpoint: "http://" + address + ":7070", Bucket: "checkpoints", Prefix: "my-app/",
		CredentialsSecretRef: &v1alpha1.SecretReference{Name: "bucket"},
	}}
}

// testBucket: the archive is in the bucket until the Checkpoint is deleted, and nothing else
// is.
func (w *checkpointWorld) testBucket(t *testing.T) {
	storage := w.startBucket(t, "64Mi")
	w.create(t, checkpointNamespace, "in-a-bucket", func(s *v1alpha1.CheckpointSpec) { s.Storage = storage })
	stored := w.waitReady(t, "in-a-bucket").Status.Containers[0]
	path, ok := strings.CutPrefix(stored.Location, "s3://checkpoints/my-app/")
	if got, want := w.filesInBucket(t), fmt.Sprintf("/data/checkpoints/my-app/%s %d", path, stored.StoredBytes); !ok || got != want {
		t.Errorf("the bucket has %q, want %q; the location is %s", got, want, stored.Location)
	}
	w.deleteCheckpoint(t, "in-a-bucket")
	if got := w.filesInBucket(t); got != "" {
		t.Errorf("the bucket still has %q", got)
	}
	w.testFullBucket(t, storage)
}

// filesInBucket returns the files of the S3 server with their sizes: objects, and parts of
// uploads.
func (w *checkpointWorld) filesInBucket(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(w.kubectl(t, "exec", "s3", "-c", "look", "--", "sh", "-c", "find /data/checkpoints -type f -exec stat -c '%n %s' {} +"))
}

// testFullBucket: the Checkpoint says that the bucket is full, and who can help. What was
// written goes at once.
func (w *checkpointWorld) testFullBucket(t *testing.T, storage *v1alpha1.CheckpointStorage) {
	w.kubectl(t, "exec", "s3", "-c", "look", "--", "sh", "-c", "dd if=/dev/zero of=/data/filling bs=64k; true")
	w.create(t, checkpointNamespace, "in-a-full-bucket", func(s *v1alpha1.CheckpointSpec) { s.Storage = storage })
	key := client.ObjectKey{Namespace: checkpointNamespace, Name: "in-a-full-bucket"}
	c := w.waitStatus(t, key, func(s *v1alpha1.CheckpointStatus) bool {
		ready := meta.FindStatusCondition(s.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == v1alpha1.ReasonStorageFull
	})
	if c.Status.WaitingFor != v1alpha1.WaitingForUser || c.Status.NextAttemptTime == nil {
		t.Errorf("the status is %+v", c.Status)
	}
	w.deleteCheckpoint(t, c.Name)
	w.kubectl(t, "exec", "s3", "-c", "look", "--", "rm", "/data/filling")
	if got := w.filesInBucket(t); got != "" {
		t.Errorf("the bucket still has %q", got)
	}
}
