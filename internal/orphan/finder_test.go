package orphan

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/local"
)

// uid returns one of ten UIDs.
func uid(n int) types.UID { return types.UID(fmt.Sprintf("6b1ff7ab-6d2e-4d4b-9a40-0d0a4d2c3c1%d", n)) }

// A finderTest has an API server and stores, which are directories: that of the node, and one
// for each bucket.
type finderTest struct {
	*Finder
	t      *testing.T
	dir    string
	writes int
	broken string // a bucket that cannot be listed
	listed func() // is called when a store was listed
}

func newTest(t *testing.T, objects ...client.Object) *finderTest {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &finderTest{t: t, dir: t.TempDir(), listed: func() {}}
	server := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.CheckpointNode{}).Build()
	api := interceptor.NewClient(server, interceptor.Funcs{
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			w.writes++
			return c.SubResource(sub).Patch(ctx, o, patch, options...)
		},
	})
	w.Finder = &Finder{
		Client: api, APIReader: api, Node: "a", PolicyNamespace: "operator", Interval: time.Hour,
		Local: v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal}, Open: w.open,
	}
	return w
}

func (w *finderTest) open(_ context.Context, c *v1alpha1.Checkpoint) (store.Store, func(string) string, error) {
	name := "local"
	if s := c.Status.Storage.S3; s != nil {
		name = s.Bucket + "-" + c.Status.StorageNamespace
	}
	if name == w.broken {
		return nil, nil, errors.New("the bucket is out of reach")
	}
	return &observedStore{local.New(filepath.Join(w.dir, name)), w}, func(key string) string { return name + ":" + key }, nil
}

// An observedStore says when it was listed.
type observedStore struct {
	store.Store
	test *finderTest
}

func (s *observedStore) List(ctx context.Context, prefix string, each func(store.Info) error) error {
	err := s.Store.List(ctx, prefix, each)
	s.test.listed()
	return err
}

// put writes an object of a size that was written a while ago.
func (w *finderTest) put(name, key string, size int, ago time.Duration) {
	w.t.Helper()
	path := filepath.Join(w.dir, name, key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		w.t.Fatal(err)
	}
	at := time.Now().Add(-ago)
	if err := os.Chtimes(path, at, at); err != nil {
		w.t.Fatal(err)
	}
}

// look looks once, and returns the locations of what is reported and the condition.
func (w *finderTest) look() ([]string, *metav1.Condition, error) {
	w.t.Helper()
	err := w.Finder.look(w.t.Context())
	n := &v1alpha1.CheckpointNode{}
	if err := w.APIReader.Get(w.t.Context(), client.ObjectKey{Name: "a"}, n); err != nil {
		w.t.Fatal(err)
	}
	var all []string
	for _, o := range n.Status.Orphans {
		all = append(all, o.Location)
	}
	return all, meta.FindStatusCondition(n.Status.Conditions, v1alpha1.ConditionOrphanedData), err
}

func (w *finderTest) want(want ...string) *metav1.Condition {
	w.t.Helper()
	got, condition, err := w.look()
	if err != nil || !slices.Equal(got, want) {
		w.t.Errorf("found are %q, want %q (%v)", got, want, err)
	}
	return condition
}

func node(name string, ready metav1.ConditionStatus) *v1alpha1.CheckpointNode {
	n := &v1alpha1.CheckpointNode{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: ready}}
	return n
}

// inBucket is a Checkpoint, with one of ten UIDs, whose data are in a bucket.
func inBucket(n int, bucket string) *v1alpha1.Checkpoint {
	return &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: fmt.Sprint("c", n), UID: uid(n)},
		Status:     v1alpha1.CheckpointStatus{Storage: inS3(bucket), StorageNamespace: "team"},
	}
}

func inS3(bucket string) *v1alpha1.CheckpointStorage {
	return &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendS3, S3: &v1alpha1.S3Storage{Endpoint: "s3.example.com", Bucket: bucket}}
}

func TestWhatIsAnOrphan(t *testing.T) {
	for name, row := range map[string]struct {
		key  string
		ago  time.Duration
		want bool
	}{
		"an archive without a Checkpoint":                {string(uid(1)) + "/main.ckpt", 2 * time.Hour, true},
		"one in a directory that a Checkpoint has named": {"team/a/" + string(uid(1)) + "/main.ckpt", 2 * time.Hour, true},
		"an incomplete upload":                           {string(uid(1)) + "/.main.ckpt.1.partial", 2 * time.Hour, true},
		"an archive with a Checkpoint":                   {string(uid(2)) + "/main.ckpt", 2 * time.Hour, false},
		"one of the last hour may be on its way":         {string(uid(1)) + "/main.ckpt", time.Hour - time.Minute, false},
		"a file of somebody else":                        {"backup/main.ckpt", 2 * time.Hour, false},
		"another file in such a directory":               {string(uid(1)) + "/notes.txt", 2 * time.Hour, false},
	} {
		w := newTest(t, node("a", metav1.ConditionFalse), inBucket(2, "b"))
		w.put("local", row.key, 100, row.ago)
		got, condition, err := w.look()
		if err != nil || (len(got) == 1) != row.want || (condition.Status == metav1.ConditionTrue) != row.want {
			t.Errorf("%s: found are %q, and the condition is %+v (%v)", name, got, condition, err)
		}
	}
}

func TestReportSaysWhatToDo(t *testing.T) {
	w := newTest(t, node("a", metav1.ConditionFalse))
	if c := w.want(); c.Status != metav1.ConditionFalse {
		t.Errorf("of a store that does not exist yet: %+v", c)
	}
	small, large := string(uid(1))+"/main.ckpt", string(uid(3))+"/log.ckpt"
	w.put("local", small, 1024, 2*time.Hour)
	w.put("local", large, 2048, 2*time.Hour)
	c := w.want("local:"+large, "local:"+small)
	if want := "2 objects with 3Ki belong to no Checkpoint of this cluster, the largest is local:" + large; !strings.HasPrefix(c.Message, want) {
		t.Errorf("the message is %q, want %q", c.Message, want)
	}
	writes := w.writes
	w.want("local:"+large, "local:"+small)
	if w.writes != writes {
		t.Error("the status is written although nothing has changed")
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "local")); err != nil {
		t.Fatal(err)
	}
	w.want()
}

func TestOneAgentLooksIntoBuckets(t *testing.T) {
	key := string(uid(1)) + "/main.ckpt"
	objects := func(nodes ...*v1alpha1.CheckpointNode) []client.Object {
		all := []client.Object{
			inBucket(2, "ours"), &v1alpha1.CheckpointPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.CheckpointPolicySpec{Storage: inS3("policy")}},
		}
		for _, n := range nodes {
			all = append(all, n)
		}
		return all
	}
	for name, row := range map[string]struct {
		nodes []*v1alpha1.CheckpointNode
		want  []string
	}{
		"the first one does":           {[]*v1alpha1.CheckpointNode{node("a", metav1.ConditionTrue), node("b", metav1.ConditionTrue)}, []string{"ours-team:" + key, "policy-operator:" + key}},
		"one that is not ready is not": {[]*v1alpha1.CheckpointNode{node("a", metav1.ConditionFalse), node("b", metav1.ConditionTrue)}, nil},
		"another one is not":           {[]*v1alpha1.CheckpointNode{node("a", metav1.ConditionTrue), node("0", metav1.ConditionTrue)}, nil},
	} {
		w := newTest(t, objects(row.nodes...)...)
		for _, bucket := range []string{"ours-team", "policy-operator", "somebody's"} {
			w.put(bucket, key, 1, 2*time.Hour)
		}
		got, _, err := w.look()
		if err != nil || !slices.Equal(got, row.want) {
			t.Errorf("%s: found are %q, want %q (%v)", name, got, row.want, err)
		}
	}
}

func TestABucketThatCannotBeListedDoesNotHideOthers(t *testing.T) {
	w := newTest(t, node("a", metav1.ConditionTrue), inBucket(2, "broken"), inBucket(3, "works"))
	w.broken = "broken-team"
	key := string(uid(1)) + "/main.ckpt"
	w.put("works-team", key, 1, 2*time.Hour)
	got, c, err := w.look()
	if !slices.Equal(got, []string{"works-team:" + key}) || err == nil || !strings.Contains(c.Message, "the bucket is out of reach") {
		t.Errorf("found are %q, %v, and the condition is %+v", got, err, c)
	}
	if err := os.RemoveAll(filepath.Join(w.dir, "works-team")); err != nil {
		t.Fatal(err)
	}
	if _, c, _ = w.look(); c.Status != metav1.ConditionUnknown {
		t.Errorf("without orphans in the others, the condition is %+v", c)
	}
}

// The data and then the Checkpoint are deleted while the agent looks.
func TestADeletionDuringALookLeavesNoOrphan(t *testing.T) {
	w := newTest(t, node("a", metav1.ConditionFalse), inBucket(1, "b"))
	w.put("local", string(uid(1))+"/main.ckpt", 1, 2*time.Hour)
	w.listed = func() {
		w.listed = func() {}
		if err := os.RemoveAll(filepath.Join(w.dir, "local")); err != nil {
			t.Fatal(err)
		}
		if err := w.Client.Delete(t.Context(), inBucket(1, "b")); err != nil {
			t.Fatal(err)
		}
	}
	w.want()
}
