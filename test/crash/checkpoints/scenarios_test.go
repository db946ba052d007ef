package checkpoints

import (
	"context"
	"errors"
	"fmt"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/store"
)

// A scenario is what users do while faults strike.
type scenario struct {
	name       string
	containers int  // of the pod; with more than one, all are checkpointed
	bucket     bool // the data go into a bucket, otherwise into a directory of the node
	encrypted  bool
	onDisk     bool // dumps can be read again
	operators  int  // at once; 0 is one
	// staleCacheOf is the role that learns late what becomes of Checkpoints.
	staleCacheOf string
	counts       bool // whether requests are counted
	// restarts is whether what a process does at its start has points.
	restarts bool
	// damages is whether the store keeps something else than what was written, once.
	damages bool
	// failures are errors of calls to the engine or the store, each once.
	failures map[string]error

	steps          []step // without any: create a Checkpoint, delete it
	disruptionName string
	disruption     step
	// once is whether the fault strikes at the point of the disruption only.
	once bool

	mayFail    []string // reasons for which a Checkpoint may fail
	mayWait    []string // reasons for which a Checkpoint may wait for a user
	leavesData bool     // the users abandon the data
}

// A step is something that users do, or that happens to them.
type step func(context.Context, *run)

func (sc *scenario) allSteps() []step {
	if sc.steps != nil {
		return sc.steps
	}
	return []step{createOne, deleteAll}
}

const checkpointName = "checkpoint"

func createOne(ctx context.Context, r *run) { r.createCheckpoint(ctx, checkpointName) }

func deleteAll(ctx context.Context, r *run) { r.deleteCheckpoints(ctx) }

// deleteAndCreate deletes the Checkpoint and creates another one of the same name.
func deleteAndCreate(ctx context.Context, r *run) {
	r.deleteCheckpoints(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recreate = []string{checkpointName}
}

// abandonAll deletes the Checkpoints, whose data nobody wants to have deleted.
func abandonAll(ctx context.Context, r *run) {
	r.abandonData(ctx)
	r.deleteCheckpoints(ctx)
}

// abandonWithoutAgent does the same while the agent is away, until the Checkpoints are gone.
func abandonWithoutAgent(ctx context.Context, r *run) {
	r.mu.Lock()
	r.away = true
	r.mu.Unlock()
	r.nodes[0].agent.hold()
	abandonAll(ctx, r)
}

func killAgent(_ context.Context, r *run) { r.nodes[0].agent.kill() }

// replacePod ends the pod and starts another one of the same name.
func replacePod(ctx context.Context, r *run) {
	r.must(r.stopPod(ctx))
	r.must(r.startPod(ctx))
}

// loseNode takes the node away, with its pod.
func loseNode(ctx context.Context, r *run) {
	r.mu.Lock()
	again := r.lost
	r.lost = true
	r.mu.Unlock()
	if again {
		return
	}
	r.must(r.takeNodeAway(ctx))
	r.must(r.stopPod(ctx))
}

func unavailable() error { return fmt.Errorf("%w: the test says so", store.ErrUnavailable) }

var scenarios = []*scenario{
	{name: "create, then delete"},
	{name: "create encrypted in a bucket, then delete", bucket: true, encrypted: true, onDisk: true},
	{name: "create of three containers, then delete", containers: 3},
	{name: "create, then delete at any moment", disruptionName: "Checkpoint deleted", disruption: deleteAll},
	{
		name: "create in a bucket, then delete at any moment", bucket: true,
		disruptionName: "Checkpoint deleted", disruption: deleteAll, once: true,
	},
	{
		name: "create, delete and create under the same name at any moment", onDisk: true,
		steps:          []step{createOne, deleteAll, deleteAll},
		disruptionName: "Checkpoint replaced", disruption: deleteAndCreate, once: true,
	},
	{
		name: "create, the agent dies at any moment", onDisk: true, restarts: true, containers: 2,
		disruptionName: "agent killed", disruption: killAgent,
	},
	{name: "a dump fails", containers: 2, failures: map[string]error{"engine Dumping": errors.New("the disk has a bad sector")}},
	{name: "the store is unavailable", onDisk: true, bucket: true, failures: map[string]error{"store Commit": unavailable()}},
	{name: "the store is full", failures: map[string]error{"store Write": fmt.Errorf("%w: the test says so", store.ErrFull)}},
	{name: "the store denies access", onDisk: true, failures: map[string]error{"store Create": fmt.Errorf("%w: the test says so", store.ErrDenied)}},
	{name: "the store cannot be read", failures: map[string]error{"store Open": unavailable()}},
	{name: "the store damages the data", damages: true},
	{
		name: "the pod is replaced at any moment", disruptionName: "pod replaced", disruption: replacePod, once: true,
		mayFail: []string{v1alpha1.ReasonSourcePodReplaced, v1alpha1.ReasonContainerNotActive, v1alpha1.ReasonPodGone},
	},
	{
		name: "the node is lost at any moment, the data are in a bucket", bucket: true,
		disruptionName: "node lost", disruption: loseNode, once: true,
		mayFail: []string{v1alpha1.ReasonNodeLost}, mayWait: []string{v1alpha1.ReasonPodGone, v1alpha1.ReasonNoAgent},
	},
	{
		name:           "the node is lost at any moment, the data are on it",
		steps:          []step{createOne, abandonAll},
		disruptionName: "node lost", disruption: loseNode, once: true,
		mayFail: []string{v1alpha1.ReasonNodeLost}, mayWait: []string{v1alpha1.ReasonPodGone, v1alpha1.ReasonNoAgent},
		leavesData: true,
	},
	{
		name: "the data are abandoned at any moment", onDisk: true, disruptionName: "data abandoned", disruption: abandonAll,
		once: true, leavesData: true,
	},
	{
		name: "the data are abandoned at any moment, without the agent", onDisk: true,
		disruptionName: "data abandoned", disruption: abandonWithoutAgent, once: true, leavesData: true,
	},
	{name: "two operators", operators: 2},
	{name: "stale cache of the operator", staleCacheOf: "operator", disruptionName: "Checkpoint deleted", disruption: deleteAll, once: true},
	{name: "stale cache of the agent", staleCacheOf: "agent"},
}
