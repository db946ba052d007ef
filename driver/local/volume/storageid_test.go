package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestIDs(t *testing.T) {
	hash := strings.Repeat("0a", 16)
	long := strings.Repeat("n", 63)
	tests := map[string]struct {
		id      string
		ok      bool
		storage string
	}{
		"without a storage":          {"vol-" + hash, true, ""},
		"of a shared storage":        {"vol-" + hash + "-0123456789ab", true, "0123456789ab"},
		"of a node":                  {"vol-" + hash + "-0123456789ab-worker-1.example.com", true, "0123456789ab-worker-1.example.com"},
		"of a node with a long name": {"vol-" + hash + "-0123456789ab-" + long, true, "0123456789ab-" + long},
		"of a name that is too long": {"vol-" + hash + "-0123456789ab-" + long + "n", false, ""},
		"of no node":                 {"vol-" + hash + "-0123456789ab-", false, ""},
		"of a path":                  {"vol-" + hash + "-0123456789ab-../x", false, ""},
		"of a snapshot":              {"snap-" + hash + "-0123456789ab", false, "0123456789ab"},
		"of another driver":          {"reallyfakevolumeid", false, ""},
		"with a line end":            {"vol-" + hash + "\n", false, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if ok := volumeID.MatchString(tt.id); ok != tt.ok || storageOf(tt.id) != tt.storage {
				t.Errorf("ok = %t, storage = %q", ok, storageOf(tt.id))
			}
			if len(tt.id) > 128 && tt.ok {
				t.Errorf("it has %d bytes", len(tt.id))
			}
		})
	}
}

// made is one volume, snapshot and group of a store.
type made struct {
	volume   Volume
	snapshot Snapshot
	group    Group
}

func makeAll(t *testing.T, s *Store, name string) made {
	t.Helper()
	v := mustCreate(t, s, raw(name, 1))
	return made{v, mustSnapshot(t, s, name, v.ID), mustGroup(t, s, name, v.ID)}
}

// deletions are the calls that delete them.
func (m made) deletions(s *Store) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"snapshot": func(ctx context.Context) error { return s.DeleteSnapshot(ctx, m.snapshot.ID) },
		"group":    func(ctx context.Context) error { return s.DeleteGroup(ctx, m.group.ID, m.group.MemberIDs()) },
		"volume":   func(ctx context.Context) error { return s.Delete(ctx, m.volume.ID) },
	}
}

func (m made) wantDeleted(t *testing.T, s *Store) {
	t.Helper()
	for range 2 { // a response may be lost
		for kind, del := range m.deletions(s) {
			if err := del(t.Context()); err != nil {
				t.Errorf("deleting a %s: %v", kind, err)
			}
		}
	}
	if _, err := s.Volume(m.volume.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the volume: %v", err)
	}
	wantNothing(t, s)
}

// The driver is started on another node, where its directory is empty.
func TestAnotherStorageDeletesNothing(t *testing.T) {
	first := open(t, t.TempDir(), Options{Capacity: 1 << 30, Home: "worker-1"})
	m := makeAll(t, first, "v")
	second := open(t, t.TempDir(), Options{Capacity: 1 << 30, Home: "worker-2"})
	for kind, del := range m.deletions(second) {
		err := del(t.Context())
		if !errors.Is(err, ErrOtherStorage) || !strings.Contains(err.Error(), "run on node worker-1") {
			t.Errorf("deleting a %s: %v", kind, err)
		}
	}
	_, err := second.Volume(m.volume.ID)
	wantIs(t, err, ErrOtherStorage)
	_, err = second.Snapshot(m.snapshot.ID)
	wantIs(t, err, ErrOtherStorage)
	_, err = second.CreateSnapshot(t.Context(), "s", m.volume.ID)
	wantIs(t, err, ErrOutcomeUnknown)
	_, err = second.CreateGroup(t.Context(), "g", []string{m.volume.ID})
	wantIs(t, err, ErrOutcomeUnknown)
	_, err = second.Create(t.Context(), Spec{Name: "clone", Access: Access{Block: true}, Source: &Source{FromSnapshot, m.snapshot.ID}})
	wantIs(t, err, ErrSourceInOtherStorage)
	// Back on the first node everything still exists.
	wantIntact(t, first)
	m.wantDeleted(t, first)
}

// An ID that the driver cannot have created does not exist anywhere.
func TestDeletingUnknownIDsSucceeds(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	must(t, s.Delete(t.Context(), "reallyfakevolumeid"))
	must(t, s.DeleteSnapshot(t.Context(), "reallyfakesnapshotid"))
	must(t, s.DeleteGroup(t.Context(), "reallyfakegroupid", []string{"reallyfakesnapshotid"}))
}

func TestADirectoryIsAnotherStorage(t *testing.T) {
	record := func(dir string) string { return filepath.Join(dir, "storage"+recordSuffix) }
	tests := map[string]struct {
		change func(t *testing.T, dir string)
		home   string
		// other is true if the directory is another storage afterwards, and here if
		// the existing items are found.
		other, here bool
	}{
		"the directory is reopened": {func(*testing.T, string) {}, "n1", false, true},
		"all content is lost": {func(t *testing.T, dir string) {
			entries, err := os.ReadDir(dir)
			must(t, err)
			for _, e := range entries {
				must(t, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}, "n1", true, false},
		"the directory is copied to another node": {func(*testing.T, string) {}, "n2", true, true},
		"the record is lost":                      {func(t *testing.T, dir string) { must(t, os.Remove(record(dir))) }, "n1", true, true},
		"the record is damaged":                   {func(t *testing.T, dir string) { must(t, os.WriteFile(record(dir), []byte("{"), 0o600)) }, "n1", true, true},
		"the record contains a path":              {func(t *testing.T, dir string) { is(t, dir, storage{ID: "../x", Node: "n1"}) }, "n1", true, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(dir, Options{Capacity: 1 << 30, Home: "n1"})
			must(t, err)
			m := makeAll(t, s, "v")
			must(t, s.Close())
			tt.change(t, dir)
			s = open(t, dir, Options{Capacity: 1 << 30, Home: tt.home})
			if other := s.storage.ID != storageOf(m.volume.ID); other != tt.other {
				t.Errorf("it is storage %s and was %s", s.storage.ID, storageOf(m.volume.ID))
			}
			if !tt.here {
				wantIs(t, s.Delete(t.Context(), m.volume.ID), ErrOtherStorage)
				return
			}
			m.wantFoundAgain(t, s)
			m.wantDeleted(t, s)
		})
	}
}

// wantFoundAgain checks that the requests that created m return the same results.
func (m made) wantFoundAgain(t *testing.T, s *Store) {
	t.Helper()
	again := makeAll(t, s, m.volume.Name)
	if again.volume.ID != m.volume.ID || again.snapshot.ID != m.snapshot.ID || again.group.ID != m.group.ID {
		t.Errorf("made %+v anew as %+v", m, again)
	}
	wantIntact(t, s)
}

// makeOld creates one of each kind with an ID from before storages were introduced.
func makeOld(t *testing.T, dir string) made {
	t.Helper()
	s, err := Open(dir, Options{Capacity: 1 << 30, Home: "n1"})
	must(t, err)
	s.storage = storage{}
	m := makeAll(t, s, "old")
	must(t, s.Close())
	must(t, os.Remove(filepath.Join(dir, "storage"+recordSuffix)))
	must(t, os.Remove(s.deletedDir()))
	if m.volume.ID != "vol-cba06b5736faf67e54b07b561eae9439" {
		t.Fatalf("the ID is %s", m.volume.ID)
	}
	return m
}

func TestIDsWithoutStorage(t *testing.T) {
	t.Run("remains usable in its directory", func(t *testing.T) {
		dir := t.TempDir()
		m := makeOld(t, dir)
		s := open(t, dir, Options{Capacity: 1 << 30, Home: "n1"})
		m.wantFoundAgain(t, s)
		if v := mustCreate(t, s, raw("new", 1)); storageOf(v.ID) != s.storage.ID {
			t.Errorf("the new one is %s", v.ID)
		}
		ids, err := s.volumes.list()
		must(t, err)
		if len(ids) != 2 {
			t.Errorf("listed %v", ids)
		}
		must(t, s.Delete(t.Context(), s.candidateIDs(volumePrefix, "new")[0]))
		m.wantDeleted(t, s)
	})
	t.Run("is not deleted from another directory", func(t *testing.T) {
		m := makeOld(t, t.TempDir())
		s := open(t, t.TempDir(), Options{Capacity: 1 << 30, Home: "n2"})
		for kind, del := range m.deletions(s) {
			if err := del(t.Context()); !errors.Is(err, ErrOtherStorage) {
				t.Errorf("deleting a %s: %v", kind, err)
			}
		}
		_, err := s.Volume(m.volume.ID)
		wantIs(t, err, ErrNotFound)
	})
}

// Pages continue after an ID, so the order is by ID and not by file name.
func TestIDsAreListedInOrder(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, storage := range []string{"", testStorage, testStorage + "-n1"} {
		must(t, s.volumes.write(Volume{ID: idFor(volumePrefix, storage, "v")}))
	}
	ids, err := s.volumes.list()
	must(t, err)
	if len(ids) != 3 || !slices.IsSorted(ids) {
		t.Errorf("listed %v", ids)
	}
}

// Processes that share a directory agree on its storage ID, whichever starts first.
func TestASharedDirectoryIsOneStorage(t *testing.T) {
	controller, n1, n2 := openPair(t, t.TempDir())
	if controller.storage != n1.storage || n1.storage != n2.storage || controller.storage.Node != "" {
		t.Errorf("they have %v, %v and %v", controller.storage, n1.storage, n2.storage)
	}
	id := mustCreate(t, controller, raw("v", 1)).ID
	mustAttach(t, n2, id, "n1")
	other, _, _ := openPair(t, t.TempDir())
	wantIs(t, other.Delete(t.Context(), id), ErrOtherStorage)
}
