package volume

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Attachment is the right of one node to use a volume. A data directory that
// nodes share has one for each volume that is in use; the record outlives every
// process and the machine.
type Attachment struct {
	// Node has the volume.
	Node string `json:"node"`
	// ReadOnly, Block, FSType and Mode are how it was attached.
	ReadOnly bool   `json:"readOnly,omitempty"`
	Block    bool   `json:"block,omitempty"`
	FSType   string `json:"fsType,omitempty"`
	Mode     string `json:"mode,omitempty"`
	// Token tells this attachment from earlier and later ones of the volume: what
	// still carries the token of an earlier one is turned away.
	Token string `json:"token"`
	// Bound is true once a device may exist that belongs to this attachment. One
	// that exists before was left by an earlier attachment.
	Bound bool `json:"bound,omitempty"`
}

func (s *Store) attachedDir() string { return filepath.Join(s.dir, "attached") }
func (s *Store) nodesDir() string    { return filepath.Join(s.dir, "nodes") }

func (s *Store) attachedRecord(id string) string {
	return filepath.Join(s.attachedDir(), id+recordSuffix)
}

// node is what is on record of a node.
type node struct {
	// MaxVolumes is how many volumes may be attached to it, 0 for any number.
	MaxVolumes int64 `json:"maxVolumes,omitempty"`
}

// registerNode puts this process's node on record: volumes can be attached to it.
func (s *Store) registerNode(n node) error {
	return s.volumes.files.writeRecord(filepath.Join(s.nodesDir(), s.node+recordSuffix), n)
}

// findNode returns what is on record of a node. The name is a stranger's, so no
// path is made of it before it is found in the list.
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
	return node{}, fmt.Errorf("node: %w; the driver of a node of that name has not used %s", ErrNotFound, s.dir)
}

// checkNodeLimit fails when a node has as many volumes as it can use. It needs the node's
// lock: what is attached at the same time counts, in other processes too.
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

// Attach gives a volume to a node. The same request again has the same answer,
// another one for that node is ErrExists, and while a node has the volume no
// other gets it: that is ErrInUse (CSI spec, ControllerPublishVolume Errors).
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
	// Who holds a node's lock waits for no other, so two calls cannot dispute.
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

// checkExisting tells whether a volume that is attached as have is attached as is wanted.
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

// Attached returns to whom the volume is attached, nil for nobody.
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

// Detach takes the volume from a node, "" for whichever has it. It succeeds where
// there is nothing to take, and it asks nobody: a node that cannot answer must not
// keep its volumes. What that node still has is seen to by the next one
// that uses the volume.
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

// AttachedToThisNode returns the attachment that token is of, if it is this node's and
// still holds. Where volumes are not attached the answer is the zero one. The
// caller holds the volume's lock.
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
		return Attachment{}, fmt.Errorf("%w: it was published to %s anew since; use the publish context of the present publication", ErrNotAttached, s.node)
	}
	return *have, nil
}

// AttachedToOtherNode tells whether another node than this process's has the volume.
// The caller holds the volume's lock.
func (s *Store) AttachedToOtherNode(id string) (bool, error) {
	have, err := s.Attached(id)
	return have != nil && have.Node != s.node, err
}

// SetBound puts on record that a device of the attachment may exist from now on. The
// caller holds the volume's lock.
func (s *Store) SetBound(id string, a Attachment) error {
	a.Bound = true
	if err := s.volumes.files.writeRecord(s.attachedRecord(id), a); err != nil {
		return fmt.Errorf("recording the device of volume %s: %w", id, wrapNoSpace(err))
	}
	return nil
}

// Shared tells whether volumes are attached.
func (s *Store) Shared() bool { return s.shared }

// checkNotAttached fails while a node has the volume.
func (s *Store) checkNotAttached(id string) error {
	have, err := s.Attached(id)
	if errors.Is(err, ErrDamaged) {
		return nil // That the volume is in no use is known from the kernel, and it must be possible to delete it.
	}
	if err == nil && have != nil {
		err = fmt.Errorf("%w: it is published to node %s", ErrInUse, have.Node)
	}
	return err
}
