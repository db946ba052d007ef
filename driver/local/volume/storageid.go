package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A driver may be started on another node, or with another disk under its data
// directory. A volume that is missing there is not necessarily deleted. Each data
// directory is therefore a storage with its own ID, which is part of all IDs created
// in it.

// storage is the record of a data directory.
type storage struct {
	// ID is generated once: random digits and, for readability, the node.
	ID string `json:"id"`
	// Node is the node that the directory was on, "" if nodes share it. On another
	// node the directory may be a copy, so it becomes another storage.
	Node string `json:"node,omitempty"`
}

// storageIDDigits is the number of random digits in a storage's ID.
const storageIDDigits = 12

func (s *Store) deletedDir() string { return filepath.Join(s.dir, "deleted") }

// loadStorage reads the storage's record. If there is no readable record it creates a
// new storage; existing content remains usable.
func (s *Store) loadStorage(node string) error {
	unlock, err := s.locks.lock(context.Background(), "storage")
	if err != nil {
		return err
	}
	defer unlock()
	path := filepath.Join(s.dir, "storage"+recordSuffix)
	err = readRecord(path, &s.storage)
	if err != nil || s.storage.Node != node || !storageID.MatchString(s.storage.ID) {
		s.storage = newStorage(node)
		if err := s.volumes.files.writeRecord(path, s.storage); err != nil {
			return fmt.Errorf("recording which storage it is: %w", err)
		}
	}
	s.earlier, err = s.findEarlierStorages()
	return err
}

func newStorage(node string) storage {
	random := make([]byte, storageIDDigits/2)
	_, _ = rand.Read(random) // never fails
	id := hex.EncodeToString(random)
	if node != "" {
		id += "-" + node
	}
	return storage{ID: id, Node: node}
}

// findEarlierStorages returns the storages, other than this one, that are named in the
// IDs in the data directory.
func (s *Store) findEarlierStorages() ([]string, error) {
	var before []string
	for _, list := range []func() ([]string, error){s.volumes.list, s.snapshots.list, s.groups.list} {
		ids, err := list()
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			before = append(before, storageOf(id))
		}
	}
	slices.Sort(before)
	return slices.DeleteFunc(slices.Compact(before), func(id string) bool { return id == s.storage.ID }), nil
}

// candidateIDs returns the IDs that something with this name may have: first the ID
// for this storage, then those for the earlier ones.
func (s *Store) candidateIDs(prefix, name string) []string {
	ids := []string{idFor(prefix, s.storage.ID, name)}
	for _, before := range s.earlier {
		ids = append(ids, idFor(prefix, before, name))
	}
	return ids
}

// notFoundError returns the error for an ID without a record.
func (s *Store) notFoundError(id string) error {
	if made := storageOf(id); made == "" || made == s.storage.ID {
		return ErrNotFound
	}
	return fmt.Errorf("%w: %w", ErrNotFound, s.otherStorageError(id))
}

// otherStorageError returns an error that names the storage that may have id.
func (s *Store) otherStorageError(id string) error {
	const lost = "if it is lost for good, delete the Kubernetes objects without the driver, as the driver's README says"
	made := storageOf(id)
	if made == "" {
		return fmt.Errorf("%w: storage %s in %s does not have it, and its ID does not tell which one has; have the driver run on the node that it was made on, or, %s",
			ErrOtherStorage, s.storage.ID, s.dir, lost)
	}
	where := "with the data directory that has it"
	if _, node, named := strings.Cut(made, "-"); named {
		where = "on node " + node + " with the data directory that has it"
	}
	return fmt.Errorf("%w: it was made in storage %s, and this driver has storage %s in %s; have the driver run %s, or, %s",
		ErrOtherStorage, made, s.storage.ID, s.dir, where, lost)
}

// wrapOutcomeUnknown adds ErrOutcomeUnknown to ErrOtherStorage: the driver of the
// other storage may already have carried out the request.
func wrapOutcomeUnknown(err error) error {
	if errors.Is(err, ErrOtherStorage) {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}

// allowDeletion fails unless id exists here, was created here, or was deleted here.
// Otherwise a missing record must not be reported as a successful deletion. It must be
// called before the record is removed.
func (s *Store) allowDeletion(record, id string) error {
	if storageOf(id) == s.storage.ID {
		return nil
	}
	found, err := fileExists(record)
	if err != nil {
		return err
	}
	if found {
		return s.recordDeleted(id)
	}
	deleted, err := fileExists(s.deletedRecord(id))
	if err == nil && !deleted {
		err = s.otherStorageError(id)
	}
	return err
}

// recordDeleted records that id was deleted here, unless the ID names this storage: a
// repeated deletion must succeed.
func (s *Store) recordDeleted(id string) error {
	if storageOf(id) == s.storage.ID {
		return nil
	}
	return wrapNoSpace(s.volumes.files.writeRecord(s.deletedRecord(id), struct{}{}))
}

func (s *Store) deletedRecord(id string) string {
	return filepath.Join(s.deletedDir(), id+recordSuffix)
}

func fileExists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
