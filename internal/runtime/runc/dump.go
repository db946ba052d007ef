package runc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A dump is a complete checkpoint of one container. It implements [runtime.Dump].
type dump struct {
	engine *Engine
	id     string
	index  int
	record record
}

// dumpsOf returns the dumps of a checkpoint that are not discarded.
func (e *Engine) dumpsOf(id string, result *result) []runtime.Dump {
	var dumps []runtime.Dump
	for i := range result.Dumps {
		if _, err := os.Stat(filepath.Join(e.onHost(id), strconv.Itoa(i))); !errors.Is(err, os.ErrNotExist) {
			dumps = append(dumps, &dump{engine: e, id: id, index: i, record: result.Dumps[i]})
		}
	}
	return dumps
}

// Report implements [runtime.Dump].
func (d *dump) Report() runtime.Report { return d.record.Report }

// Files implements [runtime.Dump].
func (d *dump) Files(ctx context.Context, consume bool, each func(runtime.File) error) error {
	if err := d.checkUnread(); err != nil {
		return err
	}
	if consume {
		// What is read is gone, and this process may die before it has read all.
		if err := writeSynced(d.consumedFile(), nil); err != nil {
			return err
		}
	}
	for _, file := range d.record.Files {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("reading the checkpoint: %w", context.Cause(ctx))
		}
		contents := &partsReader{dir: d.engine.onHost(d.id), parts: file.Parts, consume: consume}
		err := each(runtime.File{Name: file.Name, Size: file.Size, Mode: file.Mode, Reader: contents})
		if err := errors.Join(err, contents.Close()); err != nil {
			return err
		}
	}
	return nil
}

// consumedFile exists if the files of a container were read, or are being read, so that they
// cannot be read again.
func (d *dump) consumedFile() string {
	return filepath.Join(d.engine.onHost(d.id), strconv.Itoa(d.index), "consumed")
}

// checkUnread rejects to read files that were discarded, or have holes where they were read
// before.
func (d *dump) checkUnread() error {
	for name, wanted := range map[string]bool{filepath.Dir(d.consumedFile()): true, d.consumedFile(): false} {
		_, err := os.Stat(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("looking for the files of a checkpoint: %w", err)
		}
		if (err == nil) != wanted {
			return fmt.Errorf("the files of container %s in checkpoint %s were discarded, or read before: they are gone; make another checkpoint",
				d.record.Report.Container.Name, d.id)
		}
	}
	return nil
}

// Discard implements [runtime.Dump]. The last one of a checkpoint removes the rest of it.
func (d *dump) Discard() error {
	return d.engine.discard(d.id, d.index)
}

// A partsReader reads a file from its parts and gives back to the node what was read.
type partsReader struct {
	dir     string
	parts   []part
	consume bool

	open *os.File
	name string
	// Of the first part: what was read, and what was given back.
	read, punched int64
}

// punchSize is how much is given back at a time.
const punchSize = 8 << 20

func (r *partsReader) Read(p []byte) (int, error) {
	if err := r.nextPart(); err != nil {
		return 0, err
	}
	current := r.parts[0]
	p = p[:min(int64(len(p)), current.Length-r.read)]
	n, err := r.open.ReadAt(p, current.Offset+r.read)
	r.read += int64(n)
	if n < len(p) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return n, fmt.Errorf("reading %s of the checkpoint: %w", current.Path, err)
	}
	if r.read-r.punched >= punchSize {
		return n, r.giveBack()
	}
	return n, nil
}

// nextPart opens the part that is to be read, io.EOF after the last one.
func (r *partsReader) nextPart() error {
	for len(r.parts) > 0 && r.read == r.parts[0].Length {
		if err := r.giveBack(); err != nil {
			return err
		}
		r.parts, r.read, r.punched = r.parts[1:], 0, 0
	}
	if len(r.parts) == 0 {
		return io.EOF
	}
	return r.openPart()
}

func (r *partsReader) openPart() error {
	name := r.parts[0].Path
	if r.open != nil && r.name == name {
		return nil
	}
	if err := r.Close(); err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(r.dir, name), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening a file of the checkpoint: %w", err)
	}
	r.open, r.name = file, name
	return nil
}

// giveBack makes a hole where the current part was read.
func (r *partsReader) giveBack() error {
	if !r.consume || r.read == r.punched || r.open == nil {
		return nil
	}
	err := unix.Fallocate(int(r.open.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
		r.parts[0].Offset+r.punched, r.read-r.punched)
	r.punched = r.read
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("giving back what was read of a checkpoint: %w", err)
	}
	return nil
}

// Close ends the reading of the file.
func (r *partsReader) Close() error {
	if r.open == nil {
		return nil
	}
	err := r.open.Close()
	r.open = nil
	if err != nil {
		return fmt.Errorf("closing a file of the checkpoint: %w", err)
	}
	return nil
}
