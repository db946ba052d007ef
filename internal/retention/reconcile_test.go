package retention

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// A testWorld has an API server, a cache of it, and the requests that were sent.
type testWorld struct {
	*Reconciler
	t        *testing.T
	server   client.WithWatch
	now      time.Time
	events   *record.FakeRecorder
	requests []string
	reject   error // of deletions
}

func storeOf(t *testing.T, objects ...client.Object) client.WithWatch {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	return fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.CheckpointPolicy{}).WithIndex(&v1alpha1.Checkpoint{}, policyField, policyOf).Build()
}

// newWorld returns a world whose cache has the given objects, as the API server has them.
func newWorld(t *testing.T, p *v1alpha1.CheckpointPolicy, all ...*v1alpha1.Checkpoint) *testWorld {
	objects := []client.Object{p}
	for _, c := range all {
		objects = append(objects, c)
	}
	w := &testWorld{t: t, server: storeOf(t, objects...), now: noon, events: record.NewFakeRecorder(100)}
	w.Reconciler = &Reconciler{
		apiReader: w.recorded(), events: kube.NewEventsWithRecorder(w.events), options: &Options{RetryStart: time.Second},
		wallClock: func() time.Time { return w.now },
	}
	w.refresh()
	return w
}

// recorded returns a client of the API server whose requests are recorded.
func (w *testWorld) recorded() client.WithWatch {
	return interceptor.NewClient(w.server, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			w.requests = append(w.requests, "get")
			return c.Get(ctx, key, o, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, o client.ObjectList, options ...client.ListOption) error {
			w.requests = append(w.requests, "list")
			return c.List(ctx, o, options...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
			w.requests = append(w.requests, "delete "+o.GetName())
			if w.reject != nil {
				return w.reject
			}
			return c.Delete(ctx, o, options...)
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
			w.requests = append(w.requests, "patch "+sub)
			return c.SubResource(sub).Patch(ctx, o, patch, options...)
		},
	})
}

// refresh brings the cache up to date. Until then it is stale.
func (w *testWorld) refresh() {
	var objects []client.Object
	for _, list := range []client.ObjectList{&v1alpha1.CheckpointPolicyList{}, &v1alpha1.CheckpointList{}} {
		if err := w.server.List(w.t.Context(), list); err != nil {
			w.t.Fatal(err)
		}
		all, err := meta.ExtractList(list)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, o := range all {
			objects = append(objects, o.(client.Object))
		}
	}
	cache := storeOf(w.t, objects...)
	w.client = interceptor.NewClient(w.recorded(), interceptor.Funcs{
		Get: func(ctx context.Context, _ client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			return cache.Get(ctx, key, o, options...)
		},
		List: func(ctx context.Context, _ client.WithWatch, o client.ObjectList, options ...client.ListOption) error {
			return cache.List(ctx, o, options...)
		},
	})
}

// reconcile reconciles the policy and returns the requests that it took.
func (w *testWorld) reconcile() (reconcile.Result, string, error) {
	w.requests = nil
	result, err := w.Reconcile(w.t.Context(), reconcile.Request{NamespacedName: client.ObjectKey{Name: "daily"}})
	return result, strings.Join(w.requests, ", "), err
}

func (w *testWorld) want(what, want, got string, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Errorf("%s: %v", what, err)
	}
	if got != want {
		w.t.Errorf("%s: the requests are %q, want %q", what, got, want)
	}
}

func (w *testWorld) policy() *v1alpha1.CheckpointPolicy {
	w.t.Helper()
	p := &v1alpha1.CheckpointPolicy{}
	if err := w.server.Get(w.t.Context(), client.ObjectKey{Name: "daily"}, p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// left returns the names of the Checkpoints that are not deleted.
func (w *testWorld) left() string {
	var list v1alpha1.CheckpointList
	if err := w.server.List(w.t.Context(), &list); err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for i := range list.Items {
		if !isDeleting(&list.Items[i]) {
			names = append(names, list.Items[i].Name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// remove deletes a Checkpoint as a user does.
func (w *testWorld) remove(name string) {
	w.t.Helper()
	if err := w.server.Delete(w.t.Context(), taken(name, 0)); err != nil {
		w.t.Fatal(err)
	}
}

func TestExpiredCheckpointsAreDeletedWithFewRequests(t *testing.T) {
	w := newWorld(t, policy(keeping(2, 0)), taken("a", 1*h), taken("b", 2*h), taken("c", 3*h), taken("d", 4*h))
	_, requests, err := w.reconcile()
	w.want("deleting", "get, list, delete d, delete c, patch status", requests, err)
	if got := w.left(); got != "a b" {
		t.Errorf("left are %q", got)
	}
	status := w.policy().Status
	if status.ReadyCheckpoints != 2 || status.Workloads != 1 || !meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionRetentionApplied) {
		t.Errorf("the status is %+v", status)
	}
	if got := <-w.events.Events; got != "Normal CheckpointsExpired deleted 2: team/d (2 newer ones are kept), team/c (2 newer ones are kept)" {
		t.Errorf("the event is %q", got)
	}

	// The cache may show the deletion later than the status.
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "daily"}, &v1alpha1.CheckpointPolicy{}); err != nil {
		t.Fatal(err)
	}
	_, requests, err = w.reconcile()
	if strings.Contains(requests, "delete") || strings.Contains(requests, "list") {
		t.Errorf("with a stale cache, the requests are %q (%v)", requests, err)
	}
	w.refresh()
	result, requests, err := w.reconcile()
	w.want("a look without a change", "", requests, err)
	if result.RequeueAfter != maxRequeueInterval {
		t.Errorf("the next look is after %s", result.RequeueAfter)
	}
}

func TestAStaleCacheDeletesNothingThatIsNeeded(t *testing.T) {
	for name, change := range map[string]func(*testWorld){
		"the user has deleted the newest one": func(w *testWorld) { w.remove("a") },
		"the user has deleted the old one":    func(w *testWorld) { w.remove("b") },
		"the user permits more": func(w *testWorld) {
			p := w.policy()
			p.Spec.Retention, p.Generation = keeping(5, 0), 2
			if err := w.server.Update(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		},
		"the user has deleted the policy": func(w *testWorld) {
			if err := w.server.Delete(t.Context(), w.policy()); err != nil {
				t.Fatal(err)
			}
		},
		"the user has moved the old one to another policy": func(w *testWorld) {
			c := &v1alpha1.Checkpoint{}
			if err := w.server.Get(t.Context(), client.ObjectKey{Namespace: "team", Name: "b"}, c); err != nil {
				t.Fatal(err)
			}
			c.Spec.PolicyRef = "other"
			if err := w.server.Update(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		},
	} {
		w := newWorld(t, policy(keeping(1, 0)), taken("a", 1*h), taken("b", 2*h))
		change(w)
		before := w.left()
		_, requests, err := w.reconcile()
		if strings.Contains(requests, "delete") || w.left() != before || err != nil {
			t.Errorf("%s: the requests are %q, %q is left of %q (%v)", name, requests, w.left(), before, err)
		}
	}
}

// A deleted Checkpoint's name may be taken by another one between reading and deleting.
func TestADeletionHasPreconditions(t *testing.T) {
	w := newWorld(t, policy(keeping(1, 0)), taken("a", 1*h), taken("b", 2*h))
	var seen client.DeleteOptions
	w.client = interceptor.NewClient(w.client.(client.WithWatch), interceptor.Funcs{
		Delete: func(_ context.Context, _ client.WithWatch, _ client.Object, options ...client.DeleteOption) error {
			seen.ApplyOptions(options)
			return apierrors.NewConflict(schema.GroupResource{Resource: "checkpoints"}, "b", errors.New("changed"))
		},
	})
	if _, _, err := w.reconcile(); err != nil {
		t.Errorf("a Checkpoint that has changed is an error: %v", err)
	}
	if p := seen.Preconditions; p == nil || p.UID == nil || *p.UID != "uid-b" || p.ResourceVersion == nil || *p.ResourceVersion == "" {
		t.Errorf("the preconditions are %+v", p)
	}
}

func TestTheNextLookIsWhenTheNextOneIsTooOld(t *testing.T) {
	w := newWorld(t, policy(keeping(0, 72*h)), taken("a", 1*h), taken("b", 72*h-5*time.Minute))
	result, requests, err := w.reconcile()
	w.want("the first look", "patch status", requests, err)
	if result.RequeueAfter != 5*time.Minute {
		t.Errorf("the next look is after %s", result.RequeueAfter)
	}
	if at := w.policy().Status.NextExpirationTime; at == nil || !at.Time.Equal(noon.Add(5*time.Minute)) {
		t.Errorf("the status says %v", at)
	}
	w.refresh()
	w.now = noon.Add(5*time.Minute - time.Microsecond)
	if _, requests, err = w.reconcile(); requests != "" || err != nil {
		t.Errorf("before that: %q, %v", requests, err)
	}
	w.now = noon.Add(5 * time.Minute)
	_, requests, err = w.reconcile()
	w.want("then", "get, list, delete b, patch status", requests, err)
	if at := w.policy().Status.NextExpirationTime; at != nil {
		t.Errorf("the status says %v", at)
	}
}

func TestStatusIsWrittenSeldom(t *testing.T) {
	w := newWorld(t, policy(keeping(9, 0)), taken("a", 2*h))
	_, requests, err := w.reconcile()
	w.want("the first look", "patch status", requests, err)
	add := func(name string) {
		if err := w.server.Create(t.Context(), taken(name, 0)); err != nil {
			t.Fatal(err)
		}
		w.refresh()
	}
	add("b")
	w.now = noon.Add(time.Second)
	result, requests, err := w.reconcile()
	w.want("a second later", "", requests, err)
	if result.RequeueAfter != 4*time.Second {
		t.Errorf("the next look is after %s", result.RequeueAfter)
	}
	add("c")
	w.now = noon.Add(5 * time.Second)
	_, requests, err = w.reconcile()
	w.want("five seconds later", "patch status", requests, err)
	if got := w.policy().Status.ReadyCheckpoints; got != 3 {
		t.Errorf("the status says %d", got)
	}
}

func TestStatusSaysWhyExpiredCheckpointsAreLeft(t *testing.T) {
	applied := func(w *testWorld, reason, says string) {
		t.Helper()
		c := meta.FindStatusCondition(w.policy().Status.Conditions, v1alpha1.ConditionRetentionApplied)
		if c == nil || c.Status != metav1.ConditionFalse || c.Reason != reason || !strings.Contains(c.Message, says) {
			t.Errorf("the condition is %+v, want %s with %q", c, reason, says)
		}
	}
	w := newWorld(t, policy(keeping(1, 0)), taken("a", 1*h), taken("b", 2*h), taken("c", 3*h, stuck))
	_, _, err := w.reconcile()
	if err != nil {
		t.Error(err)
	}
	applied(w, "DataNotDeleted", "the data of 1 deleted Checkpoints cannot be deleted; team/c: the bucket is out of reach")

	w = newWorld(t, policy(keeping(1, 0)), taken("a", 1*h), taken("b", 2*h), taken("c", 3*h))
	w.reject = apierrors.NewForbidden(schema.GroupResource{Resource: "checkpoints"}, "c", errors.New("a webhook says no"))
	_, requests, err := w.reconcile()
	if requests != "get, list, delete c, delete b, patch status" || err == nil {
		t.Errorf("the requests are %q, %v", requests, err)
	}
	applied(w, "DeletionRejected", "a webhook says no")
	if got := w.policy().Status.ReadyCheckpoints; got != 3 {
		t.Errorf("the status says %d", got)
	}
	w.refresh()
	if _, requests, err = w.reconcile(); requests != "get, list, delete c, delete b" || err == nil {
		t.Errorf("a retry takes %q, %v", requests, err)
	}
}

func TestADeletedPolicyDeletesNothing(t *testing.T) {
	p := policy(keeping(1, 0))
	p.Finalizers = []string{"example.com/waits"}
	w := newWorld(t, p, taken("a", 1*h), taken("b", 2*h))
	if err := w.server.Delete(t.Context(), w.policy()); err != nil {
		t.Fatal(err)
	}
	w.refresh()
	result, requests, err := w.reconcile()
	w.want("a policy that is being deleted", "", requests, err)
	if result.RequeueAfter != 0 {
		t.Errorf("it is looked at again after %s", result.RequeueAfter)
	}
}

func TestChangesThatMatter(t *testing.T) {
	for name, row := range map[string]struct {
		before, after *v1alpha1.Checkpoint
		want          bool
	}{
		"it becomes ready":                   {taken("a", h, notReady), taken("a", h), true},
		"its attempt fails":                  {taken("a", h, notReady), taken("a", h, notReady, saidBy(h)), false},
		"a label is added":                   {taken("a", h), taken("a", h, func(c *v1alpha1.Checkpoint) { c.Labels = map[string]string{"a": "b"} }), false},
		"it is deleted":                      {taken("a", h), taken("a", h, deleting), true},
		"its data cannot be deleted":         {taken("a", h, deleting), taken("a", h, stuck), true},
		"it is moved to another policy":      {taken("a", h), taken("a", h, func(c *v1alpha1.Checkpoint) { c.Spec.PolicyRef = "b" }), true},
		"one that is not ready gets another": {taken("a", h, notReady), taken("a", h, notReady, func(c *v1alpha1.Checkpoint) { c.Spec.PolicyRef = "b" }), false},
	} {
		if got := factsOf(row.before) != factsOf(row.after); got != row.want {
			t.Errorf("%s: it matters: %v, want %v", name, got, row.want)
		}
	}
}
