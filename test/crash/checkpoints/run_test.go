package checkpoints

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

const (
	pollInterval = 10 * time.Millisecond
	idleAfter    = 50 * time.Millisecond
	// leakAfter is how long all processes are silent before what nobody refers to counts as
	// leaked. A request can take a second on a busy machine, and the longest pause before a
	// retry is a tenth of that.
	leakAfter = 5 * time.Second
	maxEvents = 40 // of a run; more are a report that is repeated again and again
)

// A run executes a scenario once, with at most one injection.
type run struct {
	*environment
	name string

	stepMu sync.Mutex // users do one thing at a time

	mu       sync.Mutex
	wanted   map[string]types.UID // Checkpoints that their users want, by name
	pods     []*corev1.Pod        // the last one is the present one
	ready    map[types.UID]bool   // Checkpoints that were seen ready
	lost     bool                 // the first node is gone
	away     bool                 // the first node's agent is away until no Checkpoint is left
	recreate []string             // Checkpoints that are created again when they are gone
}

// result is what was found when a run ended or gave up.
type result struct {
	leaks []string // that nobody refers to: objects, incomplete uploads, files of a node
	stuck []string // what is not in its final state: Checkpoints, frozen containers
	wrong []string // what must not happen in any run
}

func (r *result) ok() bool { return len(r.leaks)+len(r.stuck)+len(r.wrong) == 0 }

func (r *result) String() string {
	var b strings.Builder
	for _, kind := range []struct {
		name string
		all  []string
	}{{"leaked", r.leaks}, {"stuck", r.stuck}, {"wrong", r.wrong}} {
		for _, s := range kind.all {
			fmt.Fprintf(&b, "%s: %s\n", kind.name, s)
		}
	}
	return b.String()
}

// do lets users do something.
func (r *run) do(what func()) {
	r.stepMu.Lock()
	defer r.stepMu.Unlock()
	what()
}

// must notes an error of what users do: it is one of the test.
func (r *run) must(err error) {
	if err != nil {
		panic(err)
	}
}

// execute performs the users' steps, and waits after each until everything is as they want
// it.
func (r *run) execute(ctx context.Context, s injection) result {
	r.start(r, s)
	defer r.trace.stop()
	r.must(r.startPod(ctx))
	for _, act := range r.scenario.allSteps() {
		r.do(func() { act(ctx, r) })
		if found := r.waitSettled(ctx); !found.ok() {
			return found
		}
	}
	var found result
	if n := r.events.Load(); n > maxEvents {
		found.wrong = append(found.wrong, fmt.Sprintf("%d events were sent", n))
	}
	return found
}

// startPod creates the pod of the run.
func (r *run) startPod(ctx context.Context) error {
	pod, err := r.createPod(ctx, r.name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods = append(r.pods, pod)
	return nil
}

// stopPod ends the present pod.
func (r *run) stopPod(ctx context.Context) error {
	r.mu.Lock()
	pod := r.pods[len(r.pods)-1]
	r.mu.Unlock()
	return errors.Join(r.deletePod(ctx, pod.Name), r.stopContainers(pod))
}

// createCheckpoint creates a Checkpoint, which users want from now on.
func (r *run) createCheckpoint(ctx context.Context, name string) {
	c := &v1alpha1.Checkpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name},
		Spec: v1alpha1.CheckpointSpec{
			Target:  v1alpha1.CheckpointTarget{PodName: r.name},
			Storage: r.storage(),
		},
	}
	if r.scenario.containers > 1 {
		c.Spec.Target.ContainerName = v1alpha1.AllContainers
	}
	if r.scenario.encrypted {
		c.Spec.Encryption = &v1alpha1.Encryption{SecretRef: v1alpha1.SecretReference{Name: secretName}}
	}
	r.must(r.api.Create(ctx, c))
	r.trace.note("Checkpoint %s was created", name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted[name] = c.UID
}

// storage is where the Checkpoints of the environment are stored.
func (e *environment) storage() *v1alpha1.CheckpointStorage {
	if !e.scenario.bucket {
		return &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal}
	}
	return &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendS3, S3: &v1alpha1.S3Storage{
		Endpoint: e.s3.URL(), Bucket: bucketName, Prefix: e.namespace,
		CredentialsSecretRef: &v1alpha1.SecretReference{Name: secretName},
	}}
}

// deleteCheckpoints deletes all Checkpoints, which nobody wants any more.
func (r *run) deleteCheckpoints(ctx context.Context) {
	r.mu.Lock()
	clear(r.wanted)
	r.mu.Unlock()
	r.must(r.api.DeleteAllOf(ctx, &v1alpha1.Checkpoint{}, client.InNamespace(r.namespace)))
	r.trace.note("the Checkpoints were deleted")
}

// abandonData lets the Checkpoints go without their data.
func (r *run) abandonData(ctx context.Context) {
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, v1alpha1.AnnAbandonData))
	all, err := r.checkpoints(ctx)
	r.must(err)
	for i := range all {
		r.must(client.IgnoreNotFound(r.api.Patch(ctx, &all[i], patch)))
	}
}

func (e *environment) checkpoints(ctx context.Context) ([]v1alpha1.Checkpoint, error) {
	var all v1alpha1.CheckpointList
	err := e.api.List(ctx, &all, client.InNamespace(e.namespace))
	return all.Items, err
}

// isAway reports whether a process has no successor for now.
func (r *run) isAway(p *process) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return p == r.nodes[0].agent && (r.away || r.lost)
}

// waitSettled waits until everything is as wanted and the processes are idle. When it times
// out it returns what is wrong.
func (r *run) waitSettled(ctx context.Context) result {
	idle := idleAfter
	if r.scenario.staleCacheOf != "" {
		idle += watchDelay
	}
	for deadline := time.Now().Add(*patience); ; time.Sleep(pollInterval) {
		found := r.observe(ctx)
		switch {
		case len(found.wrong) > 0:
			return found
		case found.ok() && r.trace.isIdle(idle):
			found.wrong = r.verify(ctx)
			return found
		case len(found.leaks) > 0 && len(found.stuck) == 0 && r.areWorking() && r.trace.isIdle(leakAfter):
			return found
		case time.Now().After(deadline):
			if found.ok() {
				found.wrong = append(found.wrong, "the processes do not become idle")
			}
			return found
		}
	}
}

// areWorking reports whether no process has just died.
func (e *environment) areWorking() bool {
	return !slices.ContainsFunc(e.processes(), func(p *process) bool { return !p.isWorking() })
}

// observe compares the cluster, the nodes and the store with what is wanted. It also does
// what users do when Checkpoints are gone.
func (r *run) observe(ctx context.Context) (found result) {
	r.environment.mu.Lock()
	freezes := map[types.UID]int32{}
	for uid, n := range r.freezes {
		freezes[uid] = n
	}
	r.environment.mu.Unlock()
	all, err := r.checkpoints(ctx)
	r.must(err)
	if r.whenGone(ctx, all) {
		return result{stuck: []string{"a Checkpoint was just created"}}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	existing := map[string]types.UID{}
	for i := range all {
		c := &all[i]
		existing[c.Name] = c.UID
		if n := freezes[c.UID]; n > c.Status.Attempts || n > attempts {
			found.wrong = append(found.wrong, fmt.Sprintf("the containers of Checkpoint %s were frozen %d times, and its status says %d", c.Name, n, c.Status.Attempts))
		}
		r.compare(c, &found)
	}
	for name, uid := range r.wanted {
		if existing[name] != uid {
			found.wrong = append(found.wrong, fmt.Sprintf("Checkpoint %s is gone although it is wanted", name))
		}
	}
	for _, name := range r.recreate {
		found.stuck = append(found.stuck, fmt.Sprintf("Checkpoint %s is not gone yet", name))
	}
	r.compareNodes(&found)
	if len(found.stuck)+len(found.wrong) == 0 {
		r.compareStore(ctx, all, &found)
	}
	return found
}

// whenGone does what users do when Checkpoints are gone, and reports whether they have
// created another one.
func (r *run) whenGone(ctx context.Context, all []v1alpha1.Checkpoint) (created bool) {
	r.mu.Lock()
	returns, names := r.away && len(all) == 0, r.recreate
	if len(all) > 0 {
		names = nil
	} else {
		r.recreate = nil
	}
	r.away = r.away && !returns
	r.mu.Unlock()
	if returns {
		r.nodes[0].agent.release()
	}
	for _, name := range names {
		r.do(func() { r.createCheckpoint(ctx, name) })
	}
	return len(names) > 0
}

// compare reports what is not as wanted about a Checkpoint.
func (r *run) compare(c *v1alpha1.Checkpoint, found *result) {
	wrong := func(format string, args ...any) { found.wrong = append(found.wrong, fmt.Sprintf(format, args...)) }
	stuck := func(format string, args ...any) { found.stuck = append(found.stuck, fmt.Sprintf(format, args...)) }
	ready := meta.FindStatusCondition(c.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		ready = &metav1.Condition{Message: "it has no status"}
	}
	isReady := ready.Status == metav1.ConditionTrue
	switch {
	case r.wanted[c.Name] != c.UID:
		stuck("Checkpoint %s exists, and nobody wants it: finalizers %v, %s: %s", c.Name, c.Finalizers, ready.Reason, ready.Message)
	case isReady:
		r.ready[c.UID] = true
	case r.ready[c.UID]:
		wrong("Checkpoint %s was ready, and now it is not: %s: %s", c.Name, ready.Reason, ready.Message)
	case meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionFailed):
		if !slices.Contains(r.scenario.mayFail, ready.Reason) || ready.Message == "" {
			wrong("Checkpoint %s has failed: %s: %s", c.Name, ready.Reason, ready.Message)
		}
	case slices.Contains(r.scenario.mayWait, ready.Reason) && r.trace.isIdle(2*retryMax):
	default:
		stuck("Checkpoint %s is not ready: %s: %s", c.Name, ready.Reason, ready.Message)
	}
}

// compareNodes reports what is left on the nodes.
func (r *run) compareNodes(found *result) {
	for i, n := range r.nodes {
		if i == 0 && r.lost {
			continue
		}
		left, err := n.fake.Left()
		r.must(err)
		for _, file := range left {
			found.leaks = append(found.leaks, fmt.Sprintf("node %d has %s", i, strings.TrimPrefix(file, n.dir)))
		}
		for _, pod := range r.pods {
			for _, c := range containersOf(pod) {
				frozen, err := n.fake.IsFrozen(c)
				r.must(err)
				if frozen {
					found.stuck = append(found.stuck, fmt.Sprintf("container %s is frozen", c.Name))
				}
			}
		}
	}
}

var runs struct {
	sync.Mutex
	number int
}

func newRun(e *environment) *run {
	runs.Lock()
	defer runs.Unlock()
	runs.number++
	return &run{environment: e, name: fmt.Sprintf("run-%d", runs.number), wanted: map[string]types.UID{}, ready: map[types.UID]bool{}}
}

// runOnce executes one run, counts it, and returns its points and whether it passed. After a
// failure it cleans up, so that the next run starts clean.
func (e *environment) runOnce(t *testing.T, with injection, counted *row) ([]point, bool) {
	t.Helper()
	r := newRun(e)
	found := r.execute(t.Context(), with)
	points, hit := e.trace.result()
	counted.add(with, &found, hit)
	if !found.ok() {
		t.Errorf("%s:\n%s\nlog of the run:\n%s", with.label(e.scenario.disruptionName), &found, &e.trace)
	}
	r.cleanUp(context.WithoutCancel(t.Context()), t, found.ok())
	return points, found.ok()
}

// cleanUp removes what belongs to the run; after a failure also what should not be there.
func (r *run) cleanUp(ctx context.Context, t *testing.T, passed bool) {
	t.Helper()
	r.must(r.stopPod(ctx))
	for _, pod := range r.pods {
		r.must(r.stopContainers(pod))
	}
	if passed && !r.lost {
		if r.scenario.leavesData {
			r.removeStored(t)
		}
		return
	}
	for _, n := range r.nodes {
		n.agent.hold()
	}
	all, err := r.checkpoints(ctx)
	r.must(err)
	for i := range all {
		r.must(client.IgnoreNotFound(r.api.Patch(ctx, &all[i], client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`)))))
		r.must(client.IgnoreNotFound(r.api.Delete(ctx, &all[i])))
	}
	r.removeStored(t)
	r.nodes[1].agent.release()
	r.restoreNode(ctx, t)
}
