package kubelet

import (
	"context"
	"errors"
	"fmt"

	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A dump is an archive of the kubelet.
type dump struct {
	engine *Engine

	mu     sync.Mutex
	record *record
}

// Report implements [runtime.Dump].
func (d *dump) Report() runtime.Report { return d.record.Report }

// Files implements [runtime.Dump]. It reads the archive once, in its order. The file
// rootfs-diff.tar is as the runtime has made it: containerd's is compressed with gzip, and
// its restore and checkpointctl expect it so.
func (d *dump) Files(ctx context.Context, consume bool, each func(runtime.File) error) error {
	file, err := d.open(consume)
	if err != nil {
		return fmt.Errorf("reading the archive %s: %w", d.record.Archive, err)
	}
	defer file.Close()
	err = walkArchive(file, func(e *entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		f := runtime.File{Name: e.name, Size: e.size, Mode: e.mode, Reader: e}
		if !consume {
			return each(f)
		}
		holes := &holes{file: file, entry: e, next: e.start}
		f.Reader = holes
		if err := each(f); err != nil {
			return err
		}
		return holes.punch(e.end)
	})
	if err != nil {
		return fmt.Errorf("reading the archive %s: %w", d.record.Archive, err)
	}
	return nil
}

// open opens the archive. If it is going to be consumed, that is recorded first: a process
// that finds it later must not take it for complete.
func (d *dump) open(consume bool) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// The journal knows what was done through another Dump of the same checkpoint.
	now, err := d.engine.journal.read(d.record.ID)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.Consumed {
		return nil, errors.New("it was consumed or discarded")
	}
	if err != nil {
		return nil, err
	}
	if !consume {
		return openArchive(d.engine.path(d.record.Archive))
	}
	d.record.Consumed = true
	if err := d.engine.journal.write(d.record); err != nil {
		return nil, err
	}
	return os.OpenFile(d.engine.path(d.record.Archive), os.O_RDWR|unix.O_NOFOLLOW, 0)
}

// Discard implements [runtime.Dump].
func (d *dump) Discard() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := os.Remove(d.engine.path(d.record.Archive)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the archive of checkpoint %s: %w", d.record.ID, err)
	}
	return d.engine.journal.remove(d.record.ID)
}

// punchSize is how much is read before its space is given back, in bytes.
const punchSize = 4 << 20

// holes gives the space of what was read of an entry back to the file system.
type holes struct {
	file  *os.File
	entry *entry
	read  int64
	next  int64 // offset of what is not given back yet
}

func (h *holes) Read(p []byte) (int, error) {
	n, err := h.entry.Read(p)
	h.read += int64(n)
	if at := h.entry.start + h.read; at-h.next >= punchSize {
		if err := h.punch(at); err != nil {
			return n, err
		}
	}
	return n, err
}

// punch gives back what comes before an offset. A file system that cannot gives it back with
// the file.
func (h *holes) punch(to int64) error {
	if to <= h.next {
		return nil
	}
	err := unix.Fallocate(int(h.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, h.next, to-h.next)
	h.next = to
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("giving space back: %w", err)
	}
	return nil
}
