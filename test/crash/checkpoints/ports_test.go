package checkpoints

import (
	"context"
	"io"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
	"github.com/holdfast-io/holdfast/internal/store"
)

// hook makes the points of the engine's calls those of the sweep.
func (l *life) hook(_ context.Context, call runtimetest.Call) error {
	if l.dead.Load() {
		return runtimetest.ErrDied
	}
	env := l.process.env
	if call.Point == runtimetest.Frozen {
		env.countFreeze(call.ID)
	}
	if (call.Method == "Probe" || call.Method == "Recover") && !env.scenario.restarts {
		return nil
	}
	name := string(call.Point)
	if call.Method != "Checkpoint" {
		name = call.Method + " " + name
	}
	return l.call("engine "+name, func() error { return nil })
}

// An onDisk engine keeps its dumps on disk: an upload can be repeated. Those of the fake
// engine are given back while they are read.
type onDisk struct{ runtime.Engine }

func (e onDisk) Checkpoint(ctx context.Context, id string, containers []runtime.Container, options runtime.Options) ([]runtime.Dump, error) {
	dumps, err := e.Engine.Checkpoint(ctx, id, containers, options)
	return dumpsOnDisk(dumps), err
}

func (e onDisk) Recover(ctx context.Context) (map[string][]runtime.Dump, error) {
	all, err := e.Engine.Recover(ctx)
	for id, dumps := range all {
		all[id] = dumpsOnDisk(dumps)
	}
	return all, err
}

func dumpsOnDisk(dumps []runtime.Dump) []runtime.Dump {
	for i, d := range dumps {
		dumps[i] = diskDump{d}
	}
	return dumps
}

type diskDump struct{ runtime.Dump }

func (d diskDump) Report() runtime.Report {
	report := d.Dump.Report()
	report.Step = runtime.Disk
	return report
}

// A sweptStore makes the calls to a store points of the sweep.
type sweptStore struct {
	store.Store
	life *life
}

func (s *sweptStore) Check(ctx context.Context) error {
	return s.life.call("store Check", func() error { return s.Store.Check(ctx) })
}

func (s *sweptStore) Create(ctx context.Context, key string) (w store.Writer, err error) {
	err = s.life.call("store Create", func() (err error) {
		w, err = s.Store.Create(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &sweptWriter{w, s.life}, nil
}

func (s *sweptStore) Open(ctx context.Context, key string) (o store.Object, err error) {
	err = s.life.call("store Open", func() (err error) {
		o, err = s.Store.Open(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &sweptObject{o, s.life}, nil
}

func (s *sweptStore) Delete(ctx context.Context, key string) error {
	return s.life.call("store Delete", func() error { return s.Store.Delete(ctx, key) })
}

func (s *sweptStore) List(ctx context.Context, prefix string, each func(store.Info) error) error {
	return s.life.call("store List", func() error { return s.Store.List(ctx, prefix, each) })
}

type sweptWriter struct {
	store.Writer
	life *life
}

func (w *sweptWriter) Write(b []byte) (n int, err error) {
	err = w.life.call("store Write", func() (err error) {
		n, err = w.Writer.Write(w.life.process.env.damaged(b))
		return err
	})
	return n, err
}

func (w *sweptWriter) Commit() error { return w.life.call("store Commit", w.Writer.Commit) }

func (w *sweptWriter) Abort() error { return w.life.call("store Abort", w.Writer.Abort) }

// A sweptObject is read in too many calls for each to be a point.
type sweptObject struct {
	store.Object
	life *life
}

func (o *sweptObject) ReadAt(b []byte, offset int64) (int, error) {
	if o.life.dead.Load() {
		return 0, runtimetest.ErrDied
	}
	return o.Object.ReadAt(b, offset)
}

func (o *sweptObject) NewReader(offset, length int64) (io.ReadCloser, error) {
	if o.life.dead.Load() {
		return nil, runtimetest.ErrDied
	}
	return o.Object.NewReader(offset, length)
}
