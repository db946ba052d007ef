package runc

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// Names of files in the directory of a checkpoint.
const (
	requestFile = "request.json"
	lockFile    = "lock"
	journalFile = "journal.json"
	resultFile  = "result.json"
	workerLog   = "worker.log"
	memoryDir   = "memory"
)

// A request is what the agent asks of the worker that makes a checkpoint.
type request struct {
	Containers []runtime.Container
	Options    runtime.Options
	// MaxMemory and WithoutFreezeCopy are those of [Config].
	MaxMemory         int64
	WithoutFreezeCopy bool
	Capability        *runtime.Capability // of the node, as the agent has last found it
	FreezeTimes       runtime.FreezeTimes // of the node, as far as the agent knows them
}

// A result is the outcome of a checkpoint. It is written when nothing is frozen any more.
type result struct {
	Error *failure `json:",omitempty"`
	Dumps []record `json:",omitempty"`
}

// A record is a complete checkpoint of one container.
type record struct {
	Report runtime.Report
	Files  []fileRecord
}

// A fileRecord is a file of a checkpoint and where its contents are: one after another in
// these parts.
type fileRecord struct {
	Name  string
	Size  int64
	Mode  os.FileMode
	Parts []part
}

// A part is a range of a file in the directory of the checkpoint.
type part struct {
	Path           string
	Offset, Length int64
}

// An answer is what a worker says on its standard output after a short task.
type answer struct {
	Error      *failure            `json:",omitempty"`
	Capability *runtime.Capability `json:",omitempty"`
	// Reason is why images are not in RAM, see [Engine.HoldImages].
	Reason string `json:",omitempty"`
}

// A failure is an error on its way from the worker to the agent.
type failure struct {
	// Known has everything of a [runtime.Error] but the text; nil for other errors.
	Known   *runtime.Error `json:",omitempty"`
	Message string
}

func toFailure(err error) *failure {
	f := &failure{Message: err.Error()}
	errors.As(err, &f.Known)
	return f
}

func (f *failure) toError() error {
	err := errors.New(f.Message)
	if f.Known == nil {
		return err
	}
	known := *f.Known
	known.Err = err
	return &known
}

// writeJSON writes a file that is there whole or not at all, whatever ends first: this
// process or the node.
func writeJSON(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(name), err)
	}
	temporary := name + ".new"
	if err := writeSynced(temporary, text); err != nil {
		return err
	}
	if err := os.Rename(temporary, name); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(name), err)
	}
	return syncDir(filepath.Dir(name))
}

func writeSynced(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("creating a file: %w", err)
	}
	defer file.Close()
	if _, err := file.Write(text); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("writing %s to disk: %w", name, err)
	}
	return nil
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("opening a directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("writing directory %s to disk: %w", name, err)
	}
	return nil
}

func readJSON(name string, value any) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("reading a file: %w", err)
	}
	if err := json.Unmarshal(text, value); err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	return nil
}

func readResult(dir string) (*result, error) {
	var r result
	if err := readJSON(filepath.Join(dir, resultFile), &r); err != nil {
		return nil, err
	}
	return &r, nil
}

// lastLines returns the end of a log.
func lastLines(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	const most = 1000
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// A journal is what the worker of a checkpoint is going to freeze. It is on disk before
// anything is frozen.
type journal struct {
	PID        int    // of the worker, in the node's process namespace
	Start      uint64 // when it started, as in /proc/PID/stat
	Containers []frozenContainer
	Written    time.Time
}

// A frozenContainer names a container of a journal, and how it is thawed.
type frozenContainer struct {
	ID     string
	Cgroup string // the directory of its control group with the freezer
}
