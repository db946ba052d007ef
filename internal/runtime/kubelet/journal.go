package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A record is what the journal has about a checkpoint.
type record struct {
	ID string
	// Report has the container from the start, and the rest when the checkpoint is complete.
	Report runtime.Report
	// Called is when the kubelet was called.
	Called time.Time
	// Before are the names of the archives that existed before the call: they are of others.
	Before []string
	// Archive is the name of the archive, as soon as it is known.
	Archive string
	// Complete is whether the archive was verified.
	Complete bool
	// Consumed is whether a pass over the files that consumes them has begun.
	Consumed bool
}

// setFrozen sets when and for how long the container was frozen: as it was seen, else for
// the whole call.
func (r *record) setFrozen(started time.Time, duration time.Duration, w *watch) {
	r.Report.FrozenAt, r.Report.Frozen = started, duration
	if at, frozen := w.stop(); frozen > 0 {
		r.Report.FrozenAt, r.Report.Frozen, r.Report.Exact = at, frozen, true
	}
}

// A journal is a directory with a file for each checkpoint of this engine on the node.
type journal string

func (j journal) path(id string) string { return filepath.Join(string(j), id+".json") }

func (j journal) has(id string) bool {
	_, err := os.Lstat(j.path(id))
	return err == nil
}

// write writes a record so that it survives a power cut.
func (j journal) write(r *record) error {
	text, err := json.Marshal(r)
	if err == nil {
		err = writeFile(j.path(r.ID), text)
	}
	if err != nil {
		return fmt.Errorf("recording checkpoint %s: %w", r.ID, err)
	}
	return nil
}

// writeFile replaces a file as a whole, and syncs it.
func writeFile(path string, content []byte) error {
	file, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (j journal) remove(id string) error {
	if err := os.Remove(j.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the record of checkpoint %s: %w", id, err)
	}
	return nil
}

// read returns a record.
func (j journal) read(id string) (*record, error) {
	text, err := os.ReadFile(j.path(id))
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("reading %s in the journal: %w", j.path(id), err)
	}
	return r, nil
}

// records returns all records.
func (j journal) records() ([]*record, error) {
	entries, err := os.ReadDir(string(j))
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	var records []*record
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if !ok {
			continue // is being written
		}
		r, err := j.read(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue // discarded meanwhile
		}
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// open makes the directory, and removes what a process that died has not finished writing:
// it had not called the kubelet, or had written an older record before.
func (j journal) open() error {
	if err := os.MkdirAll(string(j), 0o700); err != nil {
		return fmt.Errorf("making the directory of the journal: %w", err)
	}
	unfinished, err := filepath.Glob(j.path("*") + ".new")
	if err != nil {
		return err
	}
	for _, path := range unfinished {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cleaning the journal: %w", err)
		}
	}
	return nil
}
