package runtimetest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// An engine is one process's engine of a Fake.
type engine struct {
	node *Fake

	mu     sync.Mutex
	dead   bool
	busy   map[string]bool // IDs of containers
	active map[string]bool // IDs of checkpoints
}

// A record is what the journal has about a checkpoint.
type record struct {
	ID       string
	Complete bool
	Dumps    []recordedDump
}

type recordedDump struct {
	Report    runtime.Report
	Consumed  bool
	Discarded bool
}

func (e *engine) Name() string { return "runc" }

func (e *engine) Probe(ctx context.Context) (*runtime.Capability, error) {
	if err := e.reach(ctx, Call{Method: "Probe", Point: Before}); err != nil {
		return nil, err
	}
	if err := e.reach(ctx, Call{Method: "Probe", Point: After}); err != nil {
		return nil, err
	}
	c := capability()
	return &c, nil
}

func capability() runtime.Capability {
	return runtime.Capability{
		Runtime: "containerd://2.1.9", OCIRuntime: "runc 1.3.6", CRIU: "4.2.1", Kernel: "6.18.44",
		Architecture: "amd64", CgroupMode: "v2", Steps: []runtime.Step{runtime.FreezeCopy, runtime.Tmpfs, runtime.Disk},
		OneInstant: true,
	}
}

// reach is called at each point of each call.
func (e *engine) reach(ctx context.Context, call Call) error {
	if e.isDead() {
		return ErrDied
	}
	err := e.node.reach(ctx, call)
	if errors.Is(err, ErrDied) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.dead = true
	}
	return err
}

func (e *engine) isDead() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.dead
}

func (e *engine) Checkpoint(ctx context.Context, id string, containers []runtime.Container, options runtime.Options) ([]runtime.Dump, error) {
	if err := e.reach(ctx, Call{Method: "Checkpoint", Point: Before, ID: id}); err != nil {
		return nil, err
	}
	if err := runtime.CheckRequest(id, containers); err != nil {
		return nil, err
	}
	unlock, err := e.lock(id, containers)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := e.check(id, containers); err != nil {
		return nil, err
	}
	if options.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, options.Timeout,
			runtime.Errorf(runtime.Timeout, "the dump took longer than %s", options.Timeout))
		defer cancel()
	}
	dumps, err := e.checkpoint(ctx, id, containers)
	if err == nil || errors.Is(err, ErrDied) {
		return dumps, err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, errors.Join(err, e.undo(id, containers))
}

// lock marks the ID and the containers as in use by this process.
func (e *engine) lock(id string, containers []runtime.Container) (unlock func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.active[id] {
		return nil, runtime.Errorf(runtime.DumpFailed, "checkpoint %s is in progress already", id)
	}
	for _, c := range containers {
		if e.busy[c.ID] {
			return nil, runtime.WaitErrorf(runtime.Busy, "container %s is being checkpointed already", c.Name)
		}
	}
	set := func(value bool) {
		e.active[id] = value
		for _, c := range containers {
			e.busy[c.ID] = value
		}
	}
	set(true)
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		set(false)
	}, nil
}

func (e *engine) check(id string, containers []runtime.Container) error {
	if _, err := e.node.record(id); err == nil {
		return runtime.Errorf(runtime.DumpFailed, "there is a checkpoint %s already", id)
	}
	running, err := e.node.containers()
	if err != nil {
		return err
	}
	for _, c := range containers {
		if err := identify(c, running); err != nil {
			return err
		}
	}
	return nil
}

// identify checks that a container runs, and is of the pod that the caller means.
func identify(c runtime.Container, running []fakeContainer) error {
	err := runtime.Errorf(runtime.ContainerNotRunning, "container %s of pod %s/%s does not run any more",
		c.Name, c.Namespace, c.Pod)
	for _, other := range running {
		switch {
		case other.ID == c.ID && other.Frozen:
			return runtime.WaitErrorf(runtime.Busy, "container %s is paused", c.Name)
		case other.ID == c.ID:
			return nil
		case other.Namespace == c.Namespace && other.Pod == c.Pod && other.PodUID != c.PodUID:
			err = runtime.Errorf(runtime.SourcePodReplaced, "pod %s/%s is another one now", c.Namespace, c.Pod)
		}
	}
	return err
}

func (e *engine) checkpoint(ctx context.Context, id string, containers []runtime.Container) ([]runtime.Dump, error) {
	r := record{ID: id}
	for _, c := range containers {
		r.Dumps = append(r.Dumps, recordedDump{Report: runtime.Report{Container: c}})
	}
	if err := e.node.setRecord(r); err != nil {
		return nil, err
	}
	if err := e.dumpAll(ctx, &r); err != nil {
		return nil, err
	}
	if err := e.node.thaw(containers); err != nil {
		return nil, err
	}
	r.Complete = true
	if err := e.node.setRecord(r); err != nil {
		return nil, err
	}
	return e.newDumps(r), e.reach(ctx, Call{Method: "Checkpoint", Point: After, ID: id})
}

// dumpAll freezes all containers, and then dumps them.
func (e *engine) dumpAll(ctx context.Context, r *record) error {
	frozenAt := time.Now()
	for _, d := range r.Dumps {
		c := d.Report.Container
		if _, err := e.node.set(c, "freeze", func(c *fakeContainer) { c.Frozen = true }); err != nil {
			return runtime.Errorf(runtime.ContainerNotRunning, "freezing container %s: %w", c.Name, err)
		}
	}
	if err := e.reach(ctx, Call{Method: "Checkpoint", Point: Frozen, ID: r.ID}); err != nil {
		return err
	}
	for i, d := range r.Dumps {
		report, err := e.dump(ctx, r.ID, i, d.Report.Container)
		if err != nil {
			return err
		}
		r.Dumps[i].Report = report
	}
	for i := range r.Dumps {
		r.Dumps[i].Report.FrozenAt, r.Dumps[i].Report.Frozen = frozenAt, time.Since(frozenAt)
	}
	return e.reach(ctx, Call{Method: "Checkpoint", Point: Dumped, ID: r.ID})
}

// dump dumps one container, whose dump is incomplete at the point Dumping.
func (e *engine) dump(ctx context.Context, id string, i int, c runtime.Container) (runtime.Report, error) {
	state, err := e.node.set(c, "dump", func(c *fakeContainer) { c.Counter++ })
	if err != nil {
		return runtime.Report{}, runtime.Errorf(runtime.ContainerNotRunning, "dumping container %s: %w", c.Name, err)
	}
	files, err := dumpFiles(state)
	if err != nil {
		return runtime.Report{}, err
	}
	dir := filepath.Join(e.node.dumps(), id, strconv.Itoa(i))
	var size int64
	for n, file := range files {
		if n == 1 {
			if err := e.reach(ctx, Call{Method: "Checkpoint", Point: Dumping, ID: id, Container: c}); err != nil {
				return runtime.Report{}, err
			}
		}
		path := filepath.Join(dir, file.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return runtime.Report{}, err
		}
		if err := os.WriteFile(path, file.content, 0o600); err != nil {
			return runtime.Report{}, err
		}
		size += int64(len(file.content))
	}
	// The container may have been replaced while it was dumped.
	if _, err := os.Stat(e.node.path(c.ID)); errors.Is(err, fs.ErrNotExist) {
		return runtime.Report{}, runtime.Errorf(runtime.SourcePodReplaced, "container %s ended while it was dumped", c.Name)
	}
	return runtime.Report{
		Container: c, Engine: e.Name(), Capability: capability(), Step: runtime.FreezeCopy,
		ImageName: imageName, ImageDigest: imageDigest, Exact: true, Bytes: size,
	}, nil
}

// undo ends a checkpoint that failed: nothing of it is left.
func (e *engine) undo(id string, containers []runtime.Container) error {
	if err := e.node.thaw(containers); err != nil {
		return err
	}
	return e.node.removeRecord(id)
}

func (e *engine) Recover(ctx context.Context) (map[string][]runtime.Dump, error) {
	if err := e.reach(ctx, Call{Method: "Recover", Point: Before}); err != nil {
		return nil, err
	}
	paths, err := filepath.Glob(filepath.Join(e.node.journal(), "*.json"))
	if err != nil {
		return nil, err
	}
	found := map[string][]runtime.Dump{}
	for _, path := range paths {
		var r record
		if err := readJSON(path, &r); err != nil {
			return nil, err
		}
		if e.isActive(r.ID) {
			continue
		}
		dumps, err := e.recover(r)
		if err != nil {
			return nil, err
		}
		if len(dumps) > 0 {
			found[r.ID] = dumps
		}
	}
	return found, e.reach(ctx, Call{Method: "Recover", Point: After})
}

func (e *engine) isActive(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active[id]
}

func (e *engine) recover(r record) ([]runtime.Dump, error) {
	var containers []runtime.Container
	for i, d := range r.Dumps {
		containers = append(containers, d.Report.Container)
		if d.Consumed { // its files may be incomplete
			r.Dumps[i].Discarded = true
			if err := os.RemoveAll(filepath.Join(e.node.dumps(), r.ID, strconv.Itoa(i))); err != nil {
				return nil, err
			}
		}
	}
	if !r.Complete {
		return nil, e.undo(r.ID, containers)
	}
	dumps := e.newDumps(r)
	if len(dumps) == 0 {
		return nil, e.node.removeRecord(r.ID)
	}
	return dumps, e.node.setRecord(r)
}

func (e *engine) newDumps(r record) []runtime.Dump {
	var dumps []runtime.Dump
	for i, d := range r.Dumps {
		if !d.Discarded {
			dumps = append(dumps, &dump{engine: e, id: r.ID, index: i, report: d.Report})
		}
	}
	return dumps
}

// thaw thaws those of the containers that still run.
func (f *Fake) thaw(containers []runtime.Container) error {
	for _, c := range containers {
		_, err := f.set(c, "thaw", func(c *fakeContainer) { c.Frozen = false })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (f *Fake) recordPath(id string) string { return filepath.Join(f.journal(), id+".json") }

func (f *Fake) record(id string) (record, error) {
	var r record
	return r, readJSON(f.recordPath(id), &r)
}

func (f *Fake) setRecord(r record) error { return writeJSON(f.recordPath(r.ID), r) }

// removeRecord removes the dumps of a checkpoint, then what the journal has about it.
func (f *Fake) removeRecord(id string) error {
	if err := os.RemoveAll(filepath.Join(f.dumps(), id)); err != nil {
		return err
	}
	if err := os.Remove(f.recordPath(id)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
