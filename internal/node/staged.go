package node

import (
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

// staged has the dumps that are on the node and not recorded as stored yet, by the UID of
// their Checkpoint. What it holds beside them is for this process: after a restart the
// dumps that the engines recover are stored again, and others made again.
type staged struct {
	mu      sync.Mutex
	entries map[types.UID]*stagedCheckpoint
}

// A stagedCheckpoint has the dumps of one Checkpoint.
type stagedCheckpoint struct {
	dumps []runtime.Dump
	// results are those of the archives, once all of them are stored and verified.
	results []archive.Result
}

func (s *staged) get(uid types.UID) []runtime.Dump {
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry := s.entries[uid]; entry != nil {
		return entry.dumps
	}
	return nil
}

func (s *staged) add(uid types.UID, dumps []runtime.Dump) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries == nil {
		s.entries = map[types.UID]*stagedCheckpoint{}
	}
	if s.entries[uid] == nil {
		s.entries[uid] = &stagedCheckpoint{}
	}
	s.entries[uid].dumps = append(s.entries[uid].dumps, dumps...)
}

// results returns those of the archives, nil if not all are stored.
func (s *staged) results(uid types.UID) []archive.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry := s.entries[uid]; entry != nil {
		return entry.results
	}
	return nil
}

func (s *staged) setResults(uid types.UID, results []archive.Result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if entry := s.entries[uid]; entry != nil {
		entry.results = results
	}
}

// discard removes the dumps of a Checkpoint from the node.
func (s *staged) discard(uid types.UID) error {
	var errs []error
	for _, d := range s.get(uid) {
		errs = append(errs, d.Discard())
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, uid)
	return nil
}

// uids returns the UIDs of the Checkpoints that have dumps.
func (s *staged) uids() []types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []types.UID
	for uid := range s.entries {
		all = append(all, uid)
	}
	return all
}
