package orphan

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
	"github.com/holdfast-io/holdfast/internal/store/s3"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// On a real server, archives and incomplete uploads are found, and those of Checkpoints are
// left alone.
func TestOrphansInABucket(t *testing.T) {
	server := s3server.Start(t, s3server.Options{})
	if err := os.Mkdir(filepath.Join(server.Dir, "ours"), 0o700); err != nil {
		t.Fatal(err)
	}
	allowed := egress.Policy{AllowEndpoints: []string{"127.0.0.1"}}
	bucket, err := s3.New(s3.Config{Endpoint: server.URL(), Bucket: "ours", Prefix: "team", DialContext: allowed.DialContext,
		Credentials: s3.Credentials{AccessKeyID: s3server.AccessKeyID, SecretAccessKey: s3server.SecretAccessKey}})
	if err != nil {
		t.Fatal(err)
	}
	defer bucket.Close()

	ours, orphaned, incomplete := string(uid(1))+"/main.ckpt", string(uid(2))+"/main.ckpt", string(uid(3))+"/main.ckpt"
	storetest.MustPut(t, bucket, ours, storetest.Data("ours", 10))
	storetest.MustPut(t, bucket, orphaned, storetest.Data("orphaned", 100))
	// Its process dies, so that nobody aborts it.
	ctx, die := context.WithCancel(t.Context())
	storetest.MustCreate(ctx, t, bucket, incomplete, storetest.Data("incomplete", 30<<20))
	die()

	w := newTest(t, node("a", metav1.ConditionTrue), inBucket(1, "ours"))
	w.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	w.Open = func(ctx context.Context, c *v1alpha1.Checkpoint) (store.Store, func(string) string, error) {
		if c.Status.Storage.Backend != v1alpha1.BackendS3 {
			return w.open(ctx, c)
		}
		return bucket, func(key string) string { return "s3://ours/team/" + key }, nil
	}
	condition := w.want("s3://ours/team/"+orphaned, "s3://ours/team/"+incomplete)
	if condition.Status != metav1.ConditionTrue {
		t.Errorf("the condition is %+v", condition)
	}
	for _, key := range []string{orphaned, incomplete} {
		if err := bucket.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if condition := w.want(); condition.Status != metav1.ConditionFalse {
		t.Errorf("when they are gone, the condition is %+v", condition)
	}
}
