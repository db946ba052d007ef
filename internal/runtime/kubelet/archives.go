package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// nameWindow is how long after a call began the kubelet may have named its archive: it
// authenticates the request first.
const nameWindow = 30 * time.Second

// archives returns the names of all files where the kubelet puts archives.
func (e *Engine) archives() ([]string, error) {
	entries, err := os.ReadDir(e.options.checkpointDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the kubelet makes it
	}
	if err != nil {
		return nil, fmt.Errorf("listing the archives of the kubelet: %w", err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

func (e *Engine) path(name string) string { return filepath.Join(e.options.checkpointDir(), name) }

// namedAt returns when the kubelet has named an archive of a container, to the second. A name
// cannot be parsed, only compared: the names in it may contain its separators.
func namedAt(name string, c runtime.Container) (time.Time, bool) {
	text, ok := strings.CutPrefix(name, "checkpoint-"+c.Pod+"_"+c.Namespace+"-"+c.Name+"-")
	if !ok {
		return time.Time{}, false
	}
	text, ok = strings.CutSuffix(text, ".tar")
	at, err := time.Parse(time.RFC3339, text)
	return at, ok && err == nil
}

// findArchive finds the archive of a call that was not answered with its name: the first one
// of the container that the kubelet has named since. Others are somebody else's.
func (e *Engine) findArchive(r *record) (string, error) {
	if r.Archive != "" {
		return r.Archive, nil
	}
	names, err := e.archives()
	if err != nil {
		return "", err
	}
	found, first := "", time.Time{}
	for _, name := range names {
		at, ok := namedAt(name, r.Report.Container)
		if !ok || slices.Contains(r.Before, name) {
			continue
		}
		if at.Before(r.Called.Truncate(time.Second)) || at.After(r.Called.Add(nameWindow)) {
			continue
		}
		if found == "" || at.Before(first) {
			found, first = name, at
		}
	}
	return found, nil
}

// newestArchive returns when the newest archive of a container was written, by anybody.
func (e *Engine) newestArchive(c runtime.Container) (time.Time, error) {
	names, err := e.archives()
	if err != nil {
		return time.Time{}, err
	}
	var newest time.Time
	for _, name := range names {
		if _, ok := namedAt(name, c); !ok {
			continue
		}
		if info, err := os.Lstat(e.path(name)); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest, nil
}

// nameOf returns the name of the archive whose path the kubelet has answered with.
func (e *Engine) nameOf(r *record, path string) (string, error) {
	name := filepath.Base(path)
	if _, ok := namedAt(name, r.Report.Container); !ok || filepath.Dir(path) != e.options.CheckpointDir {
		return "", runtime.Errorf(runtime.DumpFailed, "the kubelet has written the archive %s, which is left there: set the "+
			"directory of checkpoints, now %s, to that of the kubelet", path, e.options.CheckpointDir)
	}
	if slices.Contains(r.Before, name) {
		return "", runtime.Errorf(runtime.DumpFailed, "the kubelet has answered with the archive %s, which existed before", path)
	}
	return name, nil
}

// removeArchive removes the archive of a call, if there is one.
func (e *Engine) removeArchive(r *record) error {
	name, err := e.findArchive(r)
	if err != nil || name == "" {
		return err
	}
	if err := os.Remove(e.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the archive: %w", err)
	}
	return nil
}
