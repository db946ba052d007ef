package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// recordDir is a directory of records and images: volumes, snapshots or groups.
type recordDir[T any] struct {
	files fileOps
	dir   string
	// kind is the name of the item type in messages.
	kind      string
	idPattern *regexp.Regexp
	// idOf returns the ID in a record, to detect a record under a wrong name.
	idOf func(T) string
	// notFound returns the error for an ID without a record.
	notFound func(id string) error
}

func (s recordDir[T]) record(id string) string { return filepath.Join(s.dir, id+recordSuffix) }
func (s recordDir[T]) image(id string) string  { return filepath.Join(s.dir, id+imageSuffix) }

// get returns an item. An ID that this store cannot have created does not exist, and
// is never used in a path.
func (s recordDir[T]) get(id string) (T, error) {
	var item T
	if !s.idPattern.MatchString(id) {
		return item, fmt.Errorf("%s %q: %w", s.kind, id, ErrNotFound)
	}
	err := readRecord(s.record(id), &item)
	if errors.Is(err, ErrNotFound) {
		err = s.notFound(id)
	}
	if err != nil {
		return item, fmt.Errorf("%s %s: %w", s.kind, id, err)
	}
	if s.idOf(item) != id {
		return item, fmt.Errorf("%s %s: %w: its record %s is of %q; put the right one back from a backup", s.kind, id, ErrDamaged, s.record(id), s.idOf(item))
	}
	return item, nil
}

// find returns the first existing item of the given IDs, or the error for the last
// one.
func (s recordDir[T]) find(ids []string) (item T, err error) {
	for _, id := range ids {
		if item, err = s.get(id); !errors.Is(err, ErrNotFound) {
			break
		}
	}
	return item, err
}

// write writes an item's record, which makes the item exist.
func (s recordDir[T]) write(item T) error {
	return s.files.writeRecord(s.record(s.idOf(item)), item)
}

// delete removes an item. It removes the record durably before the image: a crash in
// between leaves an image without a record, never a volume without its data.
func (s recordDir[T]) delete(id string) error {
	if err := s.files.remove(s.record(id)); err != nil {
		return err
	}
	if err := s.files.syncDir(s.dir); err != nil {
		return err
	}
	return s.files.remove(s.image(id))
}

// list returns the IDs of all items, including damaged ones, in order.
func (s recordDir[T]) list() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing %ss: %w", s.kind, err)
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), recordSuffix); ok && s.idPattern.MatchString(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids) // File names sort differently if one ID is a prefix of another.
	return ids, nil
}

// page returns up to limit IDs that follow after, and whether there are more. The last
// ID of a page remains a valid start even if that item is deleted.
func (s recordDir[T]) page(after string, limit int) (ids []string, more bool, err error) {
	ids, err = s.list()
	if err != nil {
		return nil, false, err
	}
	start, found := slices.BinarySearch(ids, after)
	if found {
		start++
	}
	ids = ids[start:]
	if limit > 0 && len(ids) > limit {
		return ids[:limit], true, nil
	}
	return ids, false, nil
}

// sweep removes what a dead process left unfinished. It does not touch files that are
// not the store's, or the image of a damaged record. It works on each ID through
// ifIdle.
func (s recordDir[T]) sweep(idle func(id string, do func() error) error) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := idle(idOfFile(e.Name()), func() error { return s.sweepFile(e.Name()) }); err != nil {
			return err
		}
	}
	return nil
}

// idOfFile returns the ID that a file belongs to.
func idOfFile(file string) string {
	file = strings.TrimSuffix(file, partialSuffix)
	return strings.TrimSuffix(strings.TrimSuffix(file, recordSuffix), imageSuffix)
}

func (s recordDir[T]) sweepFile(name string) error {
	partial := strings.HasSuffix(name, recordSuffix+partialSuffix)
	orphan, err := s.isOrphan(name)
	if err != nil || !partial && !orphan {
		return err
	}
	return s.files.remove(filepath.Join(s.dir, name))
}

// isOrphan reports whether name is an image without a record.
func (s recordDir[T]) isOrphan(name string) (bool, error) {
	id, isImage := strings.CutSuffix(name, imageSuffix)
	if !isImage || !s.idPattern.MatchString(id) {
		return false, nil
	}
	_, err := os.Lstat(s.record(id))
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return false, err
}
