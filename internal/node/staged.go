package node

import (
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// staged has the dumps that are on the node and not stored yet, by the UID of their
// Checkpoint. It holds nothing that the engines would not recover.
type staged struct {
	mu    sync.Mutex
	dumps map[types.UID][]runtime.Dump
}

func (s *staged) get(uid types.UID) []runtime.Dump {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dumps[uid]
}

func (s *staged) add(uid types.UID, dumps []runtime.Dump) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dumps == nil {
		s.dumps = map[types.UID][]runtime.Dump{}
	}
	s.dumps[uid] = append(s.dumps[uid], dumps...)
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
	delete(s.dumps, uid)
	return nil
}

// uids returns the UIDs of the Checkpoints that have dumps.
func (s *staged) uids() []types.UID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []types.UID
	for uid := range s.dumps {
		all = append(all, uid)
	}
	return all
}
