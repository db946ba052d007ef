package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A dump is a dump of a Fake.
type dump struct {
	engine *engine
	id     string
	index  int // of the container in the checkpoint
	report runtime.Report
}

func (d *dump) Report() runtime.Report { return d.report }

func (d *dump) Files(ctx context.Context, consume bool, each func(runtime.File) error) error {
	call := Call{Method: "Files", Point: Before, ID: d.id, Container: d.report.Container}
	if err := d.engine.reach(ctx, call); err != nil {
		return err
	}
	gone := false
	err := d.change(func(r *recordedDump) {
		gone = r.Consumed || r.Discarded
		r.Consumed = r.Consumed || consume
	})
	if gone || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the files of container %s in checkpoint %s are not on the node any more",
			d.report.Container.Name, d.id)
	}
	if err != nil {
		return err
	}
	err = filepath.WalkDir(d.dir(), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return d.file(ctx, path, consume, each)
	})
	if err != nil {
		return err
	}
	call.Point = After
	return d.engine.reach(ctx, call)
}

func (d *dump) file(ctx context.Context, path string, consume bool, each func(runtime.File) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, err := filepath.Rel(d.dir(), path)
	if err != nil {
		return err
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	err = each(runtime.File{Name: filepath.ToSlash(name), Size: info.Size(), Mode: info.Mode(), Reader: file})
	if err != nil || !consume {
		return err
	}
	return os.Remove(path)
}

func (d *dump) Discard() error {
	call := Call{Method: "Discard", Point: Before, ID: d.id, Container: d.report.Container}
	if err := d.engine.reach(context.Background(), call); err != nil {
		return err
	}
	if err := os.RemoveAll(d.dir()); err != nil {
		return err
	}
	if err := d.change(func(r *recordedDump) { r.Discarded = true }); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	call.Point = After
	return d.engine.reach(context.Background(), call)
}

func (d *dump) dir() string {
	return filepath.Join(d.engine.node.dumps(), d.id, strconv.Itoa(d.index))
}

// change changes what the journal has about the dump. With its last dump, a checkpoint goes.
func (d *dump) change(change func(*recordedDump)) error {
	d.engine.mu.Lock()
	defer d.engine.mu.Unlock()
	r, err := d.engine.node.record(d.id)
	if err != nil {
		return err
	}
	change(&r.Dumps[d.index])
	for _, other := range r.Dumps {
		if !other.Discarded {
			return d.engine.node.setRecord(r)
		}
	}
	return d.engine.node.removeRecord(d.id)
}
