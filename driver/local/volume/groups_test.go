package volume

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAGroupMatches(t *testing.T) {
	made := Group{Name: "n", VolumeIDs: []string{"a", "b"}}
	tests := map[string]struct {
		ask  Group
		want error
	}{
		"the same request": {Group{Name: "n", VolumeIDs: []string{"a", "b"}}, nil},
		"in another order": {Group{Name: "n", VolumeIDs: []string{"b", "a"}}, nil},
		"another name":     {Group{Name: "m", VolumeIDs: []string{"a", "b"}}, ErrExists},
		"a volume less":    {Group{Name: "n", VolumeIDs: []string{"a"}}, ErrExists},
		"a volume more":    {Group{Name: "n", VolumeIDs: []string{"a", "b", "c"}}, ErrExists},
		"another volume":   {Group{Name: "n", VolumeIDs: []string{"a", "c"}}, ErrExists},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := made.matches(tt.ask); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestInvalidGroups(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 10 * Step})
	v := mustCreate(t, s, raw("v", 1))
	big := mustCreate(t, s, raw("big", 5))
	damaged := mustCreate(t, s, raw("damaged", 1))
	must(t, os.Remove(s.ImagePath(damaged)))
	tests := map[string]struct {
		name    string
		volumes []string
		want    error
	}{
		"no name":                       {"", []string{v.ID}, ErrInvalid},
		"no volumes":                    {"g", nil, ErrInvalid},
		"a volume twice":                {"g", []string{v.ID, v.ID}, ErrInvalid},
		"a volume that does not exist":  {"g", []string{v.ID, "vol-x"}, ErrNotFound},
		"a volume that lost its data":   {"g", []string{v.ID, damaged.ID}, ErrDamaged},
		"more than the capacity":        {"g", []string{v.ID, big.ID}, ErrOutOfCapacity},
		"a path in place of a volume":   {"g", []string{"../volumes/" + v.ID}, ErrNotFound},
		"a snapshot instead of volumes": {"g", []string{oldCopy}, ErrNotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := s.CreateGroup(t.Context(), tt.name, tt.volumes); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			wantNothing(t, s)
		})
	}
}

// wantNothing checks that there is no snapshot, no group, and no file of either.
func wantNothing(t *testing.T, s *Store) {
	t.Helper()
	for _, dir := range []string{s.snapshots.dir, s.groups.dir} {
		files, err := os.ReadDir(dir)
		must(t, err)
		if len(files) > 0 {
			t.Errorf("there are %v", files)
		}
	}
}

func TestARepeatedGroupIsTheSame(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	now := func() time.Time { clock = clock.Add(time.Hour); return clock }
	dir := t.TempDir()
	s, err := Open(dir, Options{Capacity: 100 * Step, Now: now})
	must(t, err)
	a, b := mustCreate(t, s, raw("a", 1)), mustCreate(t, s, raw("b", 2))
	g := mustGroup(t, s, "g", b.ID, a.ID)
	members := s.Members(g)
	must(t, s.Close())
	s = open(t, dir, Options{Capacity: 100 * Step, Now: now})
	// This holds after the sources are deleted, and in any order of the volumes.
	must(t, s.Delete(t.Context(), a.ID))
	must(t, s.Delete(t.Context(), b.ID))
	again := mustGroup(t, s, "g", a.ID, b.ID)
	if diff := cmp.Diff(g, again); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(members, s.Members(again)); diff != "" {
		t.Error(diff)
	}
	for i, m := range members {
		if m.Created != g.Created || m.GroupID != g.ID || m.VolumeID != g.VolumeIDs[i] {
			t.Errorf("member %+v of %+v", m, g)
		}
	}
	wantLeft(t, s, 97)
}

func TestMembersComeAndGoWithTheirGroup(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 100 * Step})
	a, b := mustCreate(t, s, raw("a", 1)), mustCreate(t, s, raw("b", 2))
	alone := mustSnapshot(t, s, "alone", a.ID)
	g := mustGroup(t, s, "g", a.ID, b.ID)
	ofA, _, err := s.Snapshots(a.ID, "", 0)
	must(t, err)
	if len(ofA) != 2 {
		t.Errorf("volume a has %d snapshots", len(ofA))
	}
	if err := s.DeleteSnapshot(t.Context(), g.MemberIDs()[0]); !errors.Is(err, ErrInvalid) {
		t.Errorf("deleting a member: %v", err)
	}
	for name, ids := range map[string][]string{"nothing": nil, "one": g.MemberIDs()[:1], "others": {alone.ID, g.MemberIDs()[0]}} {
		if err := s.DeleteGroup(t.Context(), g.ID, ids); !errors.Is(err, ErrInvalid) {
			t.Errorf("deleting the group and naming %s: %v", name, err)
		}
	}
	reversed := g.MemberIDs()
	slices.Reverse(reversed)
	for range 2 {
		must(t, s.DeleteGroup(t.Context(), g.ID, reversed))
	}
	all, _, err := s.Snapshots("", "", 0)
	must(t, err)
	if len(all) != 1 || all[0].ID != alone.ID {
		t.Errorf("left are %+v", all)
	}
	wantLeft(t, s, 96)
}

func TestADamagedGroupCanBeDeleted(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 100 * Step})
	a, b := mustCreate(t, s, raw("a", 1)), mustCreate(t, s, raw("b", 2))
	g := mustGroup(t, s, "g", a.ID, b.ID)
	must(t, os.WriteFile(s.groups.record(g.ID), []byte("{"), 0o600))
	if _, err := s.Group(g.ID); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Snapshot(g.MemberIDs()[0]); err != nil {
		t.Errorf("its members went with the record: %v", err)
	}
	must(t, s.DeleteGroup(t.Context(), g.ID, g.MemberIDs()))
	wantNothing(t, s)
}

// No name results in a snapshot with the ID of a group member.
func TestNoNameCollidesWithAMemberID(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 100 * Step})
	a := mustCreate(t, s, raw("a", 1))
	g := mustGroup(t, s, "g", a.ID)
	if _, err := s.CreateSnapshot(t.Context(), g.ID+"\x00"+a.ID, a.ID); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}
