package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/driver/local/disk"
)

const (
	recordSuffix  = ".json"
	imageSuffix   = ".img"
	partialSuffix = ".tmp"
)

// fileOps makes every change to the data directory, one step at a time. It calls
// beforeStep before each step, where a test can crash the process.
type fileOps struct {
	beforeStep func(step string)
}

// writeRecord replaces the record at path atomically: readers see the old one or the
// new one, even after a power loss.
func (t fileOps) writeRecord(path string, record any) error {
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	partial := path + partialSuffix
	t.beforeStep("write record")
	if err := os.WriteFile(partial, append(data, '\n'), 0o600); err != nil {
		return err
	}
	t.beforeStep("sync record")
	if err := syncFile(partial); err != nil {
		return err
	}
	t.beforeStep("rename record")
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return t.syncDir(filepath.Dir(path))
}

// newImage creates an image of zeros. The image is durable when newImage returns.
func (t fileOps) newImage(path string, size int64) error {
	t.beforeStep("create image")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return t.growImage(path, size)
}

// copyImage creates an image with the content of from. It is durable only after
// growImage, which may run when from is no longer quiesced.
func (t fileOps) copyImage(path, from string, still bool) (shared bool, err error) {
	t.beforeStep("copy image")
	return disk.Copy(path, from, still)
}

// growImage extends the image at path to size and never shortens it. The content is
// durable when growImage returns.
func (t fileOps) growImage(path string, size int64) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() < size {
		t.beforeStep("lengthen image")
		if err := os.Truncate(path, size); err != nil {
			return err
		}
	}
	t.beforeStep("sync image")
	if err := syncFile(path); err != nil {
		return err
	}
	return t.syncDir(filepath.Dir(path))
}

// remove deletes a file, which may not exist.
func (t fileOps) remove(path string) error {
	t.beforeStep("remove " + filepath.Ext(path))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (t fileOps) syncDir(path string) error {
	t.beforeStep("sync directory")
	return syncFile(path)
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// readRecord reads what writeRecord wrote. It returns ErrDamaged for a record that is
// not readable and ErrNotFound for one that does not exist.
func readRecord(path string, record any) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := json.Unmarshal(data, record); err != nil {
		return fmt.Errorf("%w: the record %s cannot be read (%w); put it back from a backup, or delete it here and lose the data", ErrDamaged, path, err)
	}
	return nil
}
