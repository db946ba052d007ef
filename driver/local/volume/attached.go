package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Attachment allows one node to use a volume. A shared data directory has a record of
// it for each attached volume; the record outlives processes and the machine.
type Attachment struct {
	// Node is the node that the volume is attached to.
	Node string `json:"node"`
	// ReadOnly, Block, FSType and Mode are how it was attached.
	ReadOnly bool   `json:"readOnly,omitempty"`
	Block    bool   `json:"block,omitempty"`
	FSType   string `json:"fsType,omitempty"`
	Mode     string `json:"mode,omitempty"`
	// Token identifies this attachment: a request with the token of an earlier one is
	// rejected.
	Token string `json:"token"`
	// Bound is true once a device may exist that belongs to this attachment. A device
	// from before that was left by an earlier attachment.
	Bound bool `json:"bound,omitempty"`
}

func (s *Store) attachedDir() string { return filepath.Join(s.dir, "attached") }
func (s *Store) nodesDir() string    { return filepath.Join(s.dir, "nodes") }

func (s *Store) attachedRecord(id string) string {
	return filepath.Join(s.attachedDir(), id+recordSuffix)
}

// node is the record of a node.
type node struct {
	// MaxVolumes limits the volumes attached to the node, 0 for no limit.
	MaxVolumes int64 `json:"maxVolumes,omitempty"`
}

// registerNode records this process's node, so that volumes can be attached to it.
func (s *Store) registerNode(n node) error {
	return s.volumes.files.writeRecord(filepath.Join(s.nodesDir(), s.node+recordSuffix), n)
}

// findNode returns the record of a node. The name comes from a request, so it becomes
// part of a path only after it is found in the directory.
func (s *Store) findNode(name string) (node, error) {
	entries, err := os.ReadDir(s.nodesDir())
	if err != nil {
		return node{}, fmt.Errorf("listing nodes: %w", err)
	}
	for _, e := range entries {
		if e.Name() == name+recordSuffix {
			var n node
			err := readRecord(filepath.Join(s.nodesDir(), e.Name()), &n)
			return n, err
		}
	}
	return node{}, fmt.Errorf("node: %w; no driver of a node with that name has used %s", ErrNotFound, s.dir)
}

// checkNodeLimit fails if a node has reached its maximum number of volumes. The caller
// has the node's lock, which also serializes attachments by other processes.
func (s *Store) checkNodeLimit(name string, n node) error {
	if n.MaxVolumes == 0 {
		return nil
	}
	ids, err := s.volumes.list()
	if err != nil {
		return err
	}
	count := int64(0)
	for _, id := range ids {
		if a, err := s.Attached(id); err == nil && a != nil && a.Node == name {
			count++
		}
	}
	if count >= n.MaxVolumes {
		return fmt.Errorf("%w: node %s has %d volumes and can use %d; unpublish one, or raise its --max-volumes", ErrOutOfCapacity, name, count, n.MaxVolumes)
	}
	return nil
}

// Attach attaches a volume to a node. A repeated request returns the same result, and
// one for the same node with other parameters ErrExists. While the volume is attached
// to another node, Attach returns ErrInUse (CSI spec, ControllerPublishVolume Errors).
func (s *Store) Attach(ctx context.Context, id string, want Attachment) (Attachment, error) {
	a, err := s.attach(ctx, id, want)
	if err != nil {
		return Attachment{}, fmt.Errorf("publishing volume %s to node %q: %w", id, want.Node, err)
	}
	return a, nil
}

func (s *Store) attach(ctx context.Context, id string, want Attachment) (Attachment, error) {
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return Attachment{}, err
	}
	defer unlock()
	if _, err := s.volumes.get(id); err != nil {
		return Attachment{}, err
	}
	n, err := s.findNode(want.Node)
	if err != nil {
		return Attachment{}, err
	}
	have, err := s.Attached(id)
	if err != nil {
		return Attachment{}, err
	}
	if have != nil {
		return *have, want.checkExisting(*have)
	}
	// Nothing waits for another lock while it has a node's lock, so there is no
	// deadlock.
	unlockNode, err := s.locks.lock(ctx, "node/"+want.Node)
	if err != nil {
		return Attachment{}, err
	}
	defer unlockNode()
	if err := s.checkNodeLimit(want.Node, n); err != nil {
		return Attachment{}, err
	}
	want.Token = rand.Text()
	return want, wrapNoSpace(s.volumes.files.writeRecord(s.attachedRecord(id), want))
}

// checkExisting returns an error if the existing attachment have differs from the
// request want.
func (want Attachment) checkExisting(have Attachment) error {
	want.Token, want.Bound = have.Token, have.Bound
	switch {
	case have.Node != want.Node:
		return fmt.Errorf("%w: it is published to node %s and can be on one node only; unpublish it there first", ErrInUse, have.Node)
	case have != want:
		return fmt.Errorf("%w: it is published there with read-only=%t block=%t filesystem=%q mode=%s", ErrExists, have.ReadOnly, have.Block, have.FSType, have.Mode)
	}
	return nil
}

// Attached returns the volume's attachment, nil if there is none.
func (s *Store) Attached(id string) (*Attachment, error) {
	if !s.shared || !volumeID.MatchString(id) {
		return nil, nil
	}
	var a Attachment
	err := readRecord(s.attachedRecord(id), &a)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading where volume %s is published: %w", id, err)
	}
	return &a, nil
}

// Detach ends the attachment of a volume to a node, or to any node if node is "". It
// succeeds if there is none. It does not contact the node: a node that does not
// respond must not keep its volumes. The next node that uses the volume detaches what
// the previous one left.
func (s *Store) Detach(ctx context.Context, id, node string) error {
	if !volumeID.MatchString(id) {
		return nil
	}
	unlock, err := s.locks.lock(ctx, id)
	if err == nil {
		defer unlock()
		err = s.detach(id, node)
	}
	if err != nil {
		return fmt.Errorf("unpublishing volume %s from node %q: %w", id, node, err)
	}
	return nil
}

func (s *Store) detach(id, node string) error {
	have, err := s.Attached(id)
	if err != nil || have == nil || node != "" && have.Node != node {
		return err
	}
	if err := s.volumes.files.remove(s.attachedRecord(id)); err != nil {
		return err
	}
	return s.volumes.files.syncDir(s.attachedDir())
}

// AttachedToThisNode returns the current attachment to this node if it has the given
// token. It returns the zero Attachment if the data directory is not shared. The
// caller has the volume's lock.
func (s *Store) AttachedToThisNode(id, token string) (Attachment, error) {
	if !s.shared {
		return Attachment{}, nil
	}
	have, err := s.Attached(id)
	switch {
	case err != nil:
		return Attachment{}, err
	case have == nil:
		return Attachment{}, fmt.Errorf("%w: it is published to no node; publish it to %s first", ErrNotAttached, s.node)
	case have.Node != s.node:
		return Attachment{}, fmt.Errorf("%w: it is published to node %s, and this is %s", ErrNotAttached, have.Node, s.node)
	case have.Token != token:
		return Attachment{}, fmt.Errorf("%w: it was published to %s again since; use the publish context of the current publication", ErrNotAttached, s.node)
	}
	return *have, nil
}

// AttachedToOtherNode reports whether the volume is attached to a node other than this
// process's. The caller has the volume's lock.
func (s *Store) AttachedToOtherNode(id string) (bool, error) {
	have, err := s.Attached(id)
	return have != nil && have.Node != s.node, err
}

// SetBound records that a device of the attachment may exist from now on. The caller
// has the volume's lock.
func (s *Store) SetBound(id string, a Attachment) error {
	a.Bound = true
	if err := s.volumes.files.writeRecord(s.attachedRecord(id), a); err != nil {
		return fmt.Errorf("recording the device of volume %s: %w", id, wrapNoSpace(err))
	}
	return nil
}

// Shared reports whether nodes share the data directory, so that volumes must be
// attached.
func (s *Store) Shared() bool { return s.shared }

// checkNotAttached fails while the volume is attached to a node.
func (s *Store) checkNotAttached(id string) error {
	have, err := s.Attached(id)
	if errors.Is(err, ErrDamaged) {
		return nil // The kernel shows that the volume is not in use, and it must be possible to delete it.
	}
	if err == nil && have != nil {
		err = fmt.Errorf("%w: it is published to node %s", ErrInUse, have.Node)
	}
	return err
}
