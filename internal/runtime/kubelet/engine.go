package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
)

// Name is the engine's name in the status of a Checkpoint.
const Name = "kubelet"

// An Engine implements [runtime.Engine].
type Engine struct {
	options Options
	client  *client
	journal journal
	cgroups freezer.Paths
	times   times
	space   func(path string) (space, error)

	mu         sync.Mutex
	active     map[string]bool // IDs of checkpoints in progress
	busy       map[string]bool // names of containers
	called     map[string]time.Time
	capability *runtime.Capability
	frozen     runtime.FreezeTimes // of the dumps of this process
}

// New returns the engine of a node. It does not call the kubelet. A state directory has one
// engine at a time.
func New(options Options) (*Engine, error) {
	if err := options.setDefaults(); err != nil {
		return nil, err
	}
	journal := journal(filepath.Join(options.StateDir, "journal"))
	if err := journal.open(); err != nil {
		return nil, err
	}
	client, err := newClient(options)
	if err != nil {
		return nil, err
	}
	return &Engine{
		options: options, client: client, journal: journal, cgroups: options.paths(),
		times: standardTimes, space: spaceOf,
		active: map[string]bool{}, busy: map[string]bool{}, called: map[string]time.Time{}, frozen: runtime.FreezeTimes{},
	}, nil
}

// Name implements [runtime.Engine].
func (e *Engine) Name() string { return Name }

// Checkpoint implements [runtime.Engine]. It takes one container only.
//
// The kubelet raises a timeout to its runtimeRequestTimeout, 2 minutes by default. If the
// caller permits less, the call is cancelled when that has passed.
func (e *Engine) Checkpoint(ctx context.Context, id string, containers []runtime.Container, options runtime.Options) ([]runtime.Dump, error) {
	if err := runtime.CheckRequest(id, containers); err != nil {
		return nil, err
	}
	if len(containers) > 1 {
		return nil, runtime.Errorf(runtime.RuntimeUnsupported, "the kubelet freezes the %d containers of pod %s/%s "+
			"one after the other: use the engine runc, or a checkpoint for each container",
			len(containers), containers[0].Namespace, containers[0].Pod)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c := containers[0]
	unlock, err := e.lock(id, c)
	if err != nil {
		return nil, err
	}
	defer unlock()
	dump, err := e.checkpoint(ctx, id, c, options)
	if err != nil {
		return nil, describe(err, "checkpointing container %s of pod %s/%s", c.Name, c.Namespace, c.Pod)
	}
	return []runtime.Dump{dump}, nil
}

// describe adds what was done to an error, and keeps its reason.
func describe(err error, format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

func key(c runtime.Container) string { return c.Namespace + "/" + c.Pod + "/" + c.Name }

// lock marks the ID and the container as in use by this process.
func (e *Engine) lock(id string, c runtime.Container) (unlock func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.busy[key(c)] {
		return nil, runtime.WaitErrorf(runtime.Busy, "container %s of pod %s/%s is being checkpointed already: "+
			"wait for that to end", c.Name, c.Namespace, c.Pod)
	}
	if e.active[id] || e.journal.has(id) {
		return nil, runtime.Errorf(runtime.DumpFailed, "there is a checkpoint %s on the node already: discard it first", id)
	}
	e.busy[key(c)], e.active[id] = true, true
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.busy, key(c))
		delete(e.active, id)
	}, nil
}

func (e *Engine) checkpoint(ctx context.Context, id string, c runtime.Container, options runtime.Options) (runtime.Dump, error) {
	capability, err := e.known(ctx)
	if err != nil {
		return nil, err
	}
	size, err := e.preflight(c)
	if err != nil {
		return nil, err
	}
	if err := e.checkFreezeTime(size, options.Timeout); err != nil {
		return nil, err
	}
	r := &record{ID: id, Report: runtime.Report{
		Container: c, Engine: e.Name(), Capability: *capability, Step: runtime.Kubelet,
		Reason: cmp.Or(options.NotFaster, "the engine kubelet has no other step"),
	}}
	dump, err := e.callUntilFrozen(ctx, r, timeoutFor(size, options.Timeout))
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.frozen.Learn(dump.Report())
	return dump, nil
}

// maxCalls is how often the kubelet is called if the container cannot be frozen.
const maxCalls = 5

// callUntilFrozen repeats the call if the OCI runtime has given up freezing the container,
// which is all that has happened to it then. With control groups of version 1, runc does so
// within milliseconds, and a busy node is enough.
func (e *Engine) callUntilFrozen(ctx context.Context, r *record, timeout time.Duration) (runtime.Dump, error) {
	var frozen time.Duration
	for calls := 1; ; calls++ {
		dump, err := e.recordedCall(ctx, r, timeout)
		frozen += r.Report.Frozen
		if runtime.ReasonOf(err) != runtime.FreezeFailed || calls == maxCalls || frozen > e.times.partlyFrozen {
			return dump, err
		}
	}
}

// recordedCall calls the kubelet when the journal has the call. The journal keeps it if it
// succeeds.
func (e *Engine) recordedCall(ctx context.Context, r *record, timeout time.Duration) (runtime.Dump, error) {
	if err := e.pace(ctx, r.Report.Container); err != nil {
		return nil, err
	}
	before, err := e.archives()
	if err != nil {
		return nil, err
	}
	r.Called, r.Before = time.Now(), before
	if err := e.journal.write(r); err != nil {
		return nil, err
	}
	dump, err := e.call(ctx, r, timeout)
	if err != nil {
		return nil, errors.Join(err, e.journal.remove(r.ID))
	}
	return dump, nil
}

func (e *Engine) checkFreezeTime(size int64, permitted time.Duration) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.frozen.Check(runtime.Kubelet, size, permitted)
}

// call has the kubelet write the archive, and does what the kubelet leaves undone. On an
// error the archive is gone.
func (e *Engine) call(ctx context.Context, r *record, timeout time.Duration) (runtime.Dump, error) {
	group, err := e.group(r.Report.Container.ID)
	if err != nil {
		return nil, err
	}
	watch := startWatch(group)
	started := time.Now()
	result := e.client.checkpoint(ctx, r.Report.Container, timeout)
	r.setFrozen(started, time.Since(started), watch)
	if !result.sent || result.answered && runtime.ReasonOf(result.err) == runtime.Busy {
		// What is frozen, and an archive that may be there, are somebody else's.
		return nil, result.err
	}
	forced, err := e.settle(r, group, result)
	if err == nil {
		err = e.find(ctx, r, result, forced)
	}
	if err == nil {
		err = e.complete(r)
	}
	if err != nil {
		return nil, errors.Join(err, e.removeArchive(r))
	}
	return &dump{engine: e, record: r}, nil
}

// find finds the archive that a call has made, or says why there is none.
func (e *Engine) find(ctx context.Context, r *record, result result, forced bool) (err error) {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case result.err == nil:
		r.Archive, err = e.nameOf(r, result.path)
		return err
	case result.answered || forced:
		return e.explain(result.err)
	}
	// The answer was lost, but the archive may be complete.
	r.Archive, err = e.findArchive(r)
	if r.Archive == "" {
		return errors.Join(result.err, err)
	}
	return nil
}

// complete verifies the archive, and records that it is complete.
func (e *Engine) complete(r *record) error {
	contents, err := readArchive(e.path(r.Archive))
	if err != nil {
		return runtime.Errorf(runtime.DumpFailed, "verifying the archive %s: %w", r.Archive, err)
	}
	if err := contents.checkIdentity(r.Report.Container); err != nil {
		// The kubelet may have left frozen what took the container's place.
		return errors.Join(err, e.thawOther(contents.id))
	}
	r.Report.ImageName, r.Report.ImageDigest, r.Report.Bytes = contents.imageName, contents.imageDigest, contents.bytes
	r.Complete = true
	return e.journal.write(r)
}

// thawOther thaws a container that is not the one of the call.
func (e *Engine) thawOther(id string) error {
	group, err := e.group(id)
	if group == nil || err != nil {
		return err
	}
	return group.Thaw(context.Background())
}

// pace waits until a call gets another archive name than the last one for the container.
func (e *Engine) pace(ctx context.Context, c runtime.Container) error {
	last, err := e.newestArchive(c)
	if err != nil {
		return err
	}
	e.mu.Lock()
	if called := e.called[key(c)]; called.After(last) {
		last = called
	}
	e.mu.Unlock()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(min(e.times.interval, time.Until(last.Add(e.times.interval)))):
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	for container, called := range e.called {
		if now.Sub(called) > e.times.interval {
			delete(e.called, container)
		}
	}
	e.called[key(c)] = now
	return nil
}

// The kubelet's own least timeout, and what is assumed about slow nodes.
const (
	leastTimeout = 2 * time.Minute
	baseTimeout  = time.Minute
	floorRate    = 20 << 20 // bytes a second
)

// timeoutFor returns the timeout of a call for a container with so much memory, in bytes.
func timeoutFor(size int64, permitted time.Duration) time.Duration {
	if permitted > 0 {
		return permitted
	}
	return max(leastTimeout, baseTimeout+time.Duration(size/floorRate)*time.Second)
}
