package runtimetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A Point is a moment of a call of an engine.
type Point string

// The points. Probe, Recover, Files and Discard have Before and After only.
const (
	// Before means that nothing was done.
	Before Point = "Before"
	// Frozen means that all containers are frozen, and none is dumped.
	Frozen Point = "Frozen"
	// Dumping means that the dump of a container has begun. It is reached for each.
	Dumping Point = "Dumping"
	// Dumped means that all dumps are complete, and the containers still frozen.
	Dumped Point = "Dumped"
	// After means that everything was done, and the caller does not know it.
	After Point = "After"
)

// A Call is a call of an engine's method that has reached a point.
type Call struct {
	Method    string // such as "Checkpoint" or "Files"
	Point     Point
	ID        string            // of the checkpoint; "" for Probe and Recover
	Container runtime.Container // for Dumping, Files and Discard
}

// A Hook runs when a call reaches a point. Its error fails the call: the engine then cleans up
// as on an error of its own. [ErrDied] ends the engine's process instead.
type Hook func(ctx context.Context, call Call) error

// ErrDied is what a hook returns so that the process of the engine ends, and what all calls of
// that engine return from then on. Everything stays as it is at that moment.
var ErrDied = errors.New("the process of the engine has died")

// A Fake is a node with fake containers. Its state is in a directory: another Fake with the
// same directory, in this process or another one, is the same node.
type Fake struct {
	dir string

	mu     sync.Mutex
	hook   Hook
	calls  map[Call]int
	events []Event
}

// An Event is something that happened to a container.
type Event struct {
	What      string // "freeze", "dump" or "thaw"
	Container string // its name
}

// A fakeContainer is the state of a container in its file.
type fakeContainer struct {
	runtime.Container
	Frozen  bool
	Counter int // counts its dumps, and is in their memory
}

// NewFake returns the node whose state is in a directory.
func NewFake(dir string) *Fake {
	return &Fake{dir: dir, calls: map[Call]int{}}
}

// Engine returns an engine as a process has it that has just started.
func (f *Fake) Engine() runtime.Engine {
	return &engine{node: f, busy: map[string]bool{}, active: map[string]bool{}}
}

// SetHook replaces the hook of all engines of this Fake; nil for none.
func (f *Fake) SetHook(hook Hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// FailOnce has the next call of a method that reaches a point fail with err.
func (f *Fake) FailOnce(method string, point Point, err error) {
	var once sync.Once
	f.SetHook(func(_ context.Context, call Call) (result error) {
		if call.Method == method && call.Point == point {
			once.Do(func() { result = err })
		}
		return result
	})
}

// Calls returns how many calls of a method have reached a point.
func (f *Fake) Calls(method string, point Point) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[Call{Method: method, Point: point}]
}

// reach counts the call, and runs the hook.
func (f *Fake) reach(ctx context.Context, call Call) error {
	f.mu.Lock()
	f.calls[Call{Method: call.Method, Point: call.Point}]++
	hook := f.hook
	f.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if hook == nil {
		return nil
	}
	return hook(ctx, call)
}

// Start starts a container of a pod in the namespace "default". Pods have one UID as long as
// one of their containers runs.
func (f *Fake) Start(pod, name string) (runtime.Container, error) {
	uid := ""
	containers, err := f.containers()
	if err != nil {
		return runtime.Container{}, err
	}
	for _, c := range containers {
		if c.Pod == pod {
			uid = c.PodUID
		}
	}
	if uid == "" {
		random := newID()
		uid = fmt.Sprintf("%s-%s-4%s-8%s-%s", random[:8], random[8:12], random[12:15], random[15:18], random[18:30])
	}
	return f.StartContainer(runtime.Container{Namespace: "default", Pod: pod, PodUID: uid, Name: name})
}

// StartContainer starts a container, with a new ID if it has none.
func (f *Fake) StartContainer(c runtime.Container) (runtime.Container, error) {
	if c.ID == "" {
		c.ID = newID()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return c, f.write(fakeContainer{Container: c})
}

// Stop ends a container.
func (f *Fake) Stop(c runtime.Container) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return os.Remove(f.path(c.ID))
}

// Replace ends a container, and starts one of the same name in another pod of the same name.
func (f *Fake) Replace(c runtime.Container) (runtime.Container, error) {
	if err := f.Stop(c); err != nil {
		return c, err
	}
	c.ID, c.PodUID = newID(), "11111111"+c.PodUID[8:]
	return f.StartContainer(c)
}

// IsFrozen returns whether a container is frozen. One that has ended is not.
func (f *Fake) IsFrozen(c runtime.Container) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := f.read(c.ID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return state.Frozen, err
}

// Events returns what has happened to containers, in order.
func (f *Fake) Events() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

// Left returns the files of dumps and the journal that are on the node.
func (f *Fake) Left() ([]string, error) {
	var left []string
	for _, dir := range []string{f.journal(), f.dumps()} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && !entry.IsDir() {
				left = append(left, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return left, nil
}

func (f *Fake) journal() string { return filepath.Join(f.dir, "journal") }

func (f *Fake) dumps() string { return filepath.Join(f.dir, "dumps") }

func (f *Fake) path(id string) string { return filepath.Join(f.dir, "containers", id+".json") }

// set changes the state of a container that runs; one that has ended is an error.
func (f *Fake) set(c runtime.Container, what string, change func(*fakeContainer)) (fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, err := f.read(c.ID)
	if err != nil {
		return state, err
	}
	change(&state)
	f.events = append(f.events, Event{What: what, Container: c.Name})
	return state, f.write(state)
}

func (f *Fake) read(id string) (fakeContainer, error) {
	var c fakeContainer
	return c, readJSON(f.path(id), &c)
}

func (f *Fake) write(c fakeContainer) error { return writeJSON(f.path(c.ID), c) }

func (f *Fake) containers() ([]fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	paths, err := filepath.Glob(f.path("*"))
	if err != nil {
		return nil, err
	}
	containers := make([]fakeContainer, len(paths))
	for i, path := range paths {
		if err := readJSON(path, &containers[i]); err != nil {
			return nil, err
		}
	}
	return containers, nil
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// writeJSON replaces a file as a whole, so that a process that dies leaves the old or the new.
func writeJSON(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func newID() string {
	sum := sha256.Sum256([]byte(rand.Text()))
	return hex.EncodeToString(sum[:])
}
