// Package runc checkpoints containers with the runc and the CRIU of the node.
//
// The engine runs in the node's agent. Everything that touches a container is done by a
// worker: a process of the same program, started by [Engine] and implemented by [Main],
// which enters the mount, process and cgroup namespaces of the node and leaves the
// agent's session and cgroup. A worker survives the agent, so that killing the agent's
// container never kills CRIU while it works inside the processes of another container.
//
// A checkpoint has a directory of its own in [Config].StateDir, named by its ID:
//
//	request.json   what the agent asks for
//	lock           locked by the worker for as long as it lives
//	journal.json   what the worker is going to freeze; written before it freezes anything
//	result.json    the outcome: the checkpoint is complete, or it failed and why
//	memory/        a tmpfs, for steps that keep the memory in RAM
//	0/, 1/ ...     the files of the first, second ... container
package runc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// Name is the engine's name in the status of a Checkpoint.
const Name = "runc"

// Config is what an engine is made of. The zero value of a field stands for its default.
type Config struct {
	// StateDir is the directory of the node, as the node sees it, in which checkpoints are
	// made. Only root may read it. Required.
	StateDir string
	// HostPID is a process in the node's own namespaces, as this process sees it: by default
	// 1, which it is in a pod with hostPID.
	HostPID int
	// WorkerArgs are the arguments with which this program calls [Main] with the arguments
	// that follow them.
	WorkerArgs []string
	// MaxDumps limits the checkpoints at one time on the node; by default 1.
	MaxDumps int64
	// Timeout limits the time for which a container is frozen, unless the options of a
	// checkpoint do; by default 60 s.
	Timeout time.Duration
	// WithoutFreezeCopy leaves the step FreezeCopy out of the ladder.
	WithoutFreezeCopy bool
	// MaxMemory limits the bytes of RAM that a checkpoint may take; 0 keeps everything on
	// disk.
	MaxMemory int64
}

// DefaultTimeout is the default of [Config].Timeout.
const DefaultTimeout = time.Minute

// An Engine implements [runtime.Engine] with runc and CRIU.
type Engine struct {
	config Config
	dumps  *semaphore.Weighted
	images sync.Mutex // is held while memory is taken for images

	mu         sync.Mutex
	active     map[string]bool     // IDs of checkpoints that this process is making
	capability *runtime.Capability // as of the last successful probe
	times      runtime.FreezeTimes // of the dumps of this process
}

var _ runtime.Engine = (*Engine)(nil)

// New returns an engine. It touches nothing.
func New(config Config) (*Engine, error) {
	if !filepath.IsAbs(config.StateDir) {
		return nil, fmt.Errorf("the state directory %q is not an absolute path", config.StateDir)
	}
	if config.HostPID == 0 {
		config.HostPID = 1
	}
	if config.MaxDumps == 0 {
		config.MaxDumps = 1
	}
	if config.Timeout == 0 {
		config.Timeout = DefaultTimeout
	}
	return &Engine{config: config, dumps: semaphore.NewWeighted(config.MaxDumps), active: map[string]bool{}, times: runtime.FreezeTimes{}}, nil
}

// Name implements [runtime.Engine].
func (e *Engine) Name() string { return Name }

// Probe implements [runtime.Engine].
func (e *Engine) Probe(ctx context.Context) (*runtime.Capability, error) {
	answer, err := e.call(ctx, "probe", strconv.FormatInt(e.config.MaxMemory, 10))
	if err != nil {
		return nil, fmt.Errorf("probing the node: %w", err)
	}
	if answer.Error != nil {
		return nil, answer.Error.toError()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.capability = answer.Capability
	return answer.Capability, nil
}

// lastCapability returns what the last probe has found, after a first one if need be.
func (e *Engine) lastCapability(ctx context.Context) (*runtime.Capability, error) {
	e.mu.Lock()
	capability := e.capability
	e.mu.Unlock()
	if capability != nil {
		return capability, nil
	}
	return e.Probe(ctx)
}

// Checkpoint implements [runtime.Engine]. If ctx ends, the checkpoint is given up.
func (e *Engine) Checkpoint(ctx context.Context, id string, containers []runtime.Container, options runtime.Options) ([]runtime.Dump, error) {
	if err := runtime.CheckRequest(id, containers); err != nil {
		return nil, err
	}
	if err := e.dumps.Acquire(ctx, 1); err != nil {
		return nil, fmt.Errorf("waiting for other checkpoints of the node: %w", err)
	}
	defer e.dumps.Release(1)
	defer e.begin(id)()

	if err := e.writeRequest(ctx, id, containers, options); err != nil {
		return nil, err
	}
	dumps, err := e.dump(ctx, id)
	if err != nil {
		// The worker cannot say that it was told to give up because ctx has ended.
		return nil, errors.Join(err, context.Cause(ctx), e.remove(context.WithoutCancel(ctx), id))
	}
	if len(dumps) == 1 { // Of several, each was frozen also while the others were dumped.
		e.learn(dumps[0].Report())
	}
	return dumps, nil
}

func (e *Engine) learn(report runtime.Report) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.times.Learn(report)
}

func (e *Engine) freezeTimes() runtime.FreezeTimes {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.times)
}

// writeRequest makes the directory of a checkpoint, with what the worker is to do.
func (e *Engine) writeRequest(ctx context.Context, id string, containers []runtime.Container, options runtime.Options) error {
	capability, err := e.lastCapability(ctx)
	if err != nil {
		return err
	}
	dir := e.onHost(id)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("making the state directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making the directory of checkpoint %s: %w", id, err)
	}
	if options.Timeout == 0 {
		options.Timeout = e.config.Timeout
	}
	request := request{Containers: containers, Options: options, MaxMemory: e.config.MaxMemory,
		WithoutFreezeCopy: e.config.WithoutFreezeCopy, Capability: capability, FreezeTimes: e.freezeTimes()}
	if err := writeJSON(filepath.Join(dir, requestFile), request); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return nil
}

// begin marks a checkpoint as being made by this process, until the function that it
// returns is called.
func (e *Engine) begin(id string) func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.active[id] = true
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.active, id)
	}
}

func (e *Engine) isActive(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.active[id]
}

// dump runs the worker that makes a checkpoint and returns its outcome.
func (e *Engine) dump(ctx context.Context, id string) ([]runtime.Dump, error) {
	log, err := os.OpenFile(filepath.Join(e.onHost(id), workerLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the log of the dump process: %w", err)
	}
	defer log.Close()
	cmd, err := e.worker("dump", e.path(id))
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := startIn(e.config.HostPID, cmd); err != nil {
		return nil, fmt.Errorf("starting the dump process: %w", err)
	}
	// The worker thaws and ends by itself.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	waitErr := cmd.Wait()
	stop()
	result, err := readResult(e.onHost(id))
	switch {
	case errors.Is(err, os.ErrNotExist):
		// Only a worker that was killed has no result. It may have left containers frozen.
		return nil, fmt.Errorf("the dump process ended without a result: %w: %s", waitErr, lastLines(log.Name()))
	case err != nil:
		return nil, err
	case result.Error != nil:
		return nil, result.Error.toError()
	}
	return e.dumpsOf(id, result), nil
}

// Recover implements [runtime.Engine]. It skips the checkpoints that this process is
// making.
func (e *Engine) Recover(ctx context.Context) (map[string][]runtime.Dump, error) {
	entries, err := os.ReadDir(e.onHost(""))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the state directory: %w", err)
	}
	complete := map[string][]runtime.Dump{}
	var failed []error
	for _, entry := range entries {
		id := entry.Name()
		if e.isActive(id) {
			continue
		}
		dumps, err := e.recoverOne(ctx, id)
		if err != nil {
			failed = append(failed, fmt.Errorf("recovering checkpoint %s: %w", id, err))
		} else if dumps != nil {
			complete[id] = dumps
		}
	}
	return complete, errors.Join(failed...)
}

// recoverOne ends one checkpoint and returns it if it is complete. Otherwise it is gone.
func (e *Engine) recoverOne(ctx context.Context, id string) ([]runtime.Dump, error) {
	answer, err := e.call(ctx, "recover", e.path(id))
	if err != nil {
		return nil, err
	}
	if answer.Error != nil {
		return nil, answer.Error.toError()
	}
	result, err := readResult(e.onHost(id))
	switch {
	case errors.Is(err, os.ErrNotExist), err == nil && result.Error != nil:
		return nil, e.remove(ctx, id)
	case err != nil:
		return nil, err
	}
	left, err := e.readable(e.dumpsOf(id, result))
	if err == nil && len(left) == 0 {
		// The process that discarded the last one may have died before it removed the rest.
		err = e.remove(ctx, id)
	}
	return left, err
}

// readable discards those of a checkpoint's dumps that a process had begun to consume, and
// returns the others.
func (e *Engine) readable(dumps []runtime.Dump) ([]runtime.Dump, error) {
	var left []runtime.Dump
	for _, d := range dumps {
		if d.(*dump).checkUnread() == nil {
			left = append(left, d)
		} else if err := d.Discard(); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// remove thaws what a checkpoint may have left frozen and removes all of it.
func (e *Engine) remove(ctx context.Context, id string) error {
	answer, err := e.call(ctx, "remove", e.path(id))
	if err != nil {
		return fmt.Errorf("removing checkpoint %s: %w", id, err)
	}
	if answer.Error != nil {
		return answer.Error.toError()
	}
	return nil
}

// discard removes one container's part of a checkpoint, and all the rest with the last one.
func (e *Engine) discard(id string, index int) error {
	dir := e.onHost(id)
	for _, part := range []string{strconv.Itoa(index), filepath.Join(memoryDir, strconv.Itoa(index))} {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			return fmt.Errorf("removing checkpoint %s: %w", id, err)
		}
	}
	result, err := readResult(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil // Removed before.
	}
	if err != nil {
		return err
	}
	if len(e.dumpsOf(id, result)) > 0 {
		return nil
	}
	return e.remove(context.Background(), id)
}

// path is a checkpoint's directory as the node sees it, onHost as this process does.
func (e *Engine) path(id string) string { return filepath.Join(e.config.StateDir, id) }

func (e *Engine) onHost(id string) string {
	return filepath.Join("/proc", strconv.Itoa(e.config.HostPID), "root", e.path(id))
}

// call runs a worker for a short task and returns what it answers on its standard output.
func (e *Engine) call(ctx context.Context, args ...string) (*answer, error) {
	cmd, err := e.worker(args...)
	if err != nil {
		return nil, err
	}
	out, err := outputIn(ctx, e.config.HostPID, cmd)
	if err != nil {
		return nil, fmt.Errorf("running the worker: %w", err)
	}
	var answer answer
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, fmt.Errorf("reading the worker's answer: %w", err)
	}
	return &answer, nil
}
