package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// The table in the CSI spec, ControllerPublishVolume, for volumes that are on one
// node.
func TestCheckExisting(t *testing.T) {
	have := Attachment{Node: "n1", Mode: "SINGLE_NODE_WRITER", FSType: "ext4", Token: "old", Bound: true}
	tests := map[string]struct {
		change func(*Attachment)
		want   error
	}{
		"the same again":             {func(*Attachment) {}, nil},
		"another node":               {func(a *Attachment) { a.Node = "n2" }, ErrInUse},
		"another node, read-only":    {func(a *Attachment) { a.Node, a.ReadOnly = "n2", true }, ErrInUse},
		"read-only, where it writes": {func(a *Attachment) { a.ReadOnly = true }, ErrExists},
		"as a raw device":            {func(a *Attachment) { a.Block, a.FSType = true, "" }, ErrExists},
		"another filesystem":         {func(a *Attachment) { a.FSType = "xfs" }, ErrExists},
		"another access mode":        {func(a *Attachment) { a.Mode = "SINGLE_NODE_READER_ONLY" }, ErrExists},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := Attachment{Node: have.Node, Mode: have.Mode, FSType: have.FSType}
			tt.change(&want)
			if err := want.checkExisting(have); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// openPair opens a directory as the controller and as the nodes n1 and n2.
func openPair(t *testing.T, dir string) (controller, n1, n2 *Store) {
	t.Helper()
	controller = open(t, dir, Options{Shared: true, Capacity: 1 << 30})
	n1 = open(t, dir, Options{Shared: true, NodeOnly: true, Node: "n1"})
	n2 = open(t, dir, Options{Shared: true, NodeOnly: true, Node: "n2", MaxVolumes: 1})
	return controller, n1, n2
}

func mustAttach(t *testing.T, s *Store, id, node string) Attachment {
	t.Helper()
	a, err := s.Attach(t.Context(), id, Attachment{Node: node})
	must(t, err)
	return a
}

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestAVolumeIsAttachedToOneNode(t *testing.T) {
	dir := t.TempDir()
	s, n1, n2 := openPair(t, dir)
	id := mustCreate(t, s, raw("v", 1)).ID
	first := mustAttach(t, s, id, "n1")
	if diff := cmp.Diff(first, mustAttach(t, s, id, "n1")); diff != "" {
		t.Errorf("the answer to a repeated call differs: %s", diff)
	}
	_, err := s.Attach(t.Context(), id, Attachment{Node: "n2"})
	wantIs(t, err, ErrInUse)
	wantIs(t, s.Delete(t.Context(), id), ErrInUse)

	// A restarted process reads what this one recorded.
	must(t, s.Close())
	s = open(t, dir, Options{Shared: true, Capacity: 1 << 30})
	_, err = n1.AttachedToThisNode(id, first.Token)
	must(t, err)
	_, err = n2.AttachedToThisNode(id, first.Token)
	wantIs(t, err, ErrNotAttached)

	must(t, s.Detach(t.Context(), id, "n2")) // where it was never attached
	must(t, s.Detach(t.Context(), "vol-00000000000000000000000000000000", "n1"))
	must(t, s.Detach(t.Context(), "../x", "n1"))
	_, err = n1.AttachedToThisNode(id, first.Token)
	must(t, err)

	for range 2 {
		must(t, s.Detach(t.Context(), id, "n1"))
	}
	_, err = n1.AttachedToThisNode(id, first.Token)
	wantIs(t, err, ErrNotAttached)
	if again := mustAttach(t, s, id, "n1"); again.Token == first.Token {
		t.Error("two publications have one token")
	}
	_, err = n1.AttachedToThisNode(id, first.Token)
	wantIs(t, err, ErrNotAttached)
	must(t, s.Detach(t.Context(), id, ""))
	must(t, s.Delete(t.Context(), id))
}

func TestAttachNotFound(t *testing.T) {
	s, _, _ := openPair(t, t.TempDir())
	id := mustCreate(t, s, raw("v", 1)).ID
	for _, node := range []string{"n3", "../nodes/n1", ""} {
		_, err := s.Attach(t.Context(), id, Attachment{Node: node})
		wantIs(t, err, ErrNotFound)
	}
	for _, id := range []string{"vol-00000000000000000000000000000000", "../x"} {
		_, err := s.Attach(t.Context(), id, Attachment{Node: "n1"})
		wantIs(t, err, ErrNotFound)
	}
}

func TestMaxVolumesIsEnforced(t *testing.T) {
	s, _, _ := openPair(t, t.TempDir())
	first, second := mustCreate(t, s, raw("1", 1)).ID, mustCreate(t, s, raw("2", 1)).ID
	mustAttach(t, s, first, "n2")
	mustAttach(t, s, first, "n2")
	_, err := s.Attach(t.Context(), second, Attachment{Node: "n2"})
	wantIs(t, err, ErrOutOfCapacity)
	must(t, s.Detach(t.Context(), first, "n2"))
	mustAttach(t, s, second, "n2")
}

// Replicas that attach concurrently count each other's attachments.
func TestReplicasEnforceMaxVolumesTogether(t *testing.T) {
	dir := t.TempDir()
	s, _, _ := openPair(t, dir)
	replicas := []*Store{open(t, dir, Options{Shared: true, NodeOnly: true}), open(t, dir, Options{Shared: true, NodeOnly: true})}
	var ids []string
	for i := range 16 {
		ids = append(ids, mustCreate(t, s, raw(fmt.Sprint(i), 1)).ID)
	}
	var all errgroup.Group
	var attached atomic.Int32
	for i, id := range ids {
		all.Go(func() error {
			_, err := replicas[i%2].Attach(t.Context(), id, Attachment{Node: "n2"})
			if err == nil {
				attached.Add(1)
			}
			if errors.Is(err, ErrOutOfCapacity) {
				return nil
			}
			return err
		})
	}
	must(t, all.Wait())
	if n := attached.Load(); n != 1 {
		t.Errorf("%d volumes are attached to a node that can use 1", n)
	}
}

func TestADirectoryIsSharedOrNot(t *testing.T) {
	alone, controller, node := Options{}, Options{Shared: true}, Options{Shared: true, NodeOnly: true, Node: "n1"}
	publisher := Options{Shared: true, NodeOnly: true}
	tests := map[string]struct {
		first, second Options
		want          error
	}{
		"two nodes":                           {node, node, nil},
		"a controller beside a node":          {node, controller, nil},
		"two publishers":                      {publisher, publisher, nil},
		"two controllers":                     {controller, controller, ErrLocked},
		"a node next to an exclusive process": {alone, node, ErrLocked},
		"an exclusive process next to a node": {node, alone, ErrLocked},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, tt.first)
			s, err := Open(dir, tt.second)
			wantIs(t, err, tt.want)
			if err == nil {
				must(t, s.Close())
			}
		})
	}
}

// Locks exclude other processes that share the directory as well as calls of one
// process.
func TestLocksReachOtherProcesses(t *testing.T) {
	s, n1, n2 := openPair(t, t.TempDir())
	unlock, err := n1.Lock(t.Context(), "v")
	must(t, err)
	free, err := n2.Lock(t.Context(), "w")
	must(t, err)
	free()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = n2.Lock(now, "v")
	wantIs(t, err, ErrPending)

	got := make(chan error, 1)
	go func() {
		unlock, err := s.locks.lock(t.Context(), "w", "v")
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	must(t, <-got)
}

// A file that another process is writing is not one that a dead process left.
func TestAControllerThatStartsLeavesOthersAlone(t *testing.T) {
	dir := t.TempDir()
	s, n1, _ := openPair(t, dir)
	v := mustCreate(t, s, raw("v", 1))
	must(t, s.Close())
	unlock, err := n1.Lock(t.Context(), v.ID)
	must(t, err)
	partial := n1.volumes.record(v.ID) + partialSuffix
	must(t, os.WriteFile(partial, nil, 0o600))
	must(t, open(t, dir, Options{Shared: true}).Close())
	if _, err := os.Stat(partial); err != nil {
		t.Error(err)
	}
	unlock()
	open(t, dir, Options{Shared: true})
	if _, err := os.Stat(partial); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want it gone", err)
	}
}
