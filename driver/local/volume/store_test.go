package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
)

func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); !errors.Is(err, os.ErrClosed) { // A test may have ended it.
			must(t, err)
		}
	})
	return s
}

func TestChoose(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	tests := map[string]struct {
		ask   Range
		floor int64
		want  int64
		err   error
	}{
		"an unspecified size is the default":                    {Range{}, 0, gib, nil},
		"an unspecified size respects the limit":                {Range{Limit: 100*mib + 1}, 0, 100 * mib, nil},
		"one byte is rounded up to a step":                      {Range{Required: 1}, 0, mib, nil},
		"a multiple of the step is not changed":                 {Range{Required: 5 * mib}, 0, 5 * mib, nil},
		"one more byte is rounded up":                           {Range{Required: 5*mib + 1}, 0, 6 * mib, nil},
		"rounding may reach the limit":                          {Range{Required: 5*mib + 1, Limit: 6 * mib}, 0, 6 * mib, nil},
		"rounding may not pass the limit":                       {Range{Required: 5*mib + 1, Limit: 6*mib - 1}, 0, 0, ErrOutOfRange},
		"too small is raised to the floor":                      {Range{Required: mib}, 300 * mib, 300 * mib, nil},
		"the floor may not pass the limit":                      {Range{Required: mib, Limit: 299 * mib}, 300 * mib, 0, ErrOutOfRange},
		"a limit below a step leaves no size":                   {Range{Limit: 1}, 0, 0, ErrOutOfRange},
		"a required size above the limit is invalid":            {Range{Required: 2 * mib, Limit: mib}, 0, 0, ErrInvalid},
		"a negative size is invalid":                            {Range{Required: -1}, 0, 0, ErrInvalid},
		"a negative limit is invalid":                           {Range{Limit: -1}, 0, 0, ErrInvalid},
		"a size that overflows when rounded up is out of range": {Range{Required: 1<<63 - 1}, 0, 0, ErrOutOfRange},
		"the smallest size that overflows":                      {Range{Required: 1<<63 - mib + 1}, 0, 0, ErrOutOfRange},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := tt.ask.choose(tt.floor)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d, %v; want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestCheckName(t *testing.T) {
	tests := map[string]struct {
		name string
		ok   bool
	}{
		"a usual name":              {"pvc-7f6f1c8e", true},
		"a path is only a name":     {"../../etc/passwd", true},
		"other scripts":             {"объём-ボリューム", true},
		"usual whitespace":          {"a\tb\nc\rd", true},
		"the longest name":          {strings.Repeat("x", 128), true},
		"a name too long":           {strings.Repeat("x", 129), false},
		"no name":                   {"", false},
		"a zero byte":               {"a\x00b", false},
		"a vertical tab":            {"a\vb", false},
		"delete":                    {"a\x7fb", false},
		"a C1 control character":    {"a\u0085b", false},
		"invalid UTF-8":             {"a\xffb", false},
		"a character above the C1s": {"a\u00a0b", true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := checkName(tt.name); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	made := Volume{ID: "v", Name: "n", Size: 8, Access: Access{Mount: true}, FSType: disk.Ext4, Source: &Source{FromVolume, "s"}}
	base := Spec{Name: "n", Range: Range{Required: 4, Limit: 8}, Access: made.Access, FSType: disk.Ext4, Source: &Source{FromVolume, "s"}}
	tests := map[string]struct {
		change func(*Spec)
		want   error
	}{
		"the same request":         {func(*Spec) {}, nil},
		"another name":             {func(s *Spec) { s.Name = "m" }, ErrExists},
		"more than it has":         {func(s *Spec) { s.Range = Range{Required: 9} }, ErrExists},
		"less than it has":         {func(s *Spec) { s.Range = Range{Limit: 7} }, ErrExists},
		"another filesystem":       {func(s *Spec) { s.FSType = disk.XFS }, ErrExists},
		"another access":           {func(s *Spec) { s.Access.Block = true }, ErrExists},
		"no source":                {func(s *Spec) { s.Source = nil }, ErrExists},
		"another source":           {func(s *Spec) { s.Source = &Source{FromVolume, "t"} }, ErrExists},
		"a source of another kind": {func(s *Spec) { s.Source = &Source{FromSnapshot, "s"} }, ErrExists},
		"no size matches any":      {func(s *Spec) { s.Range = Range{} }, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := base
			tt.change(&spec)
			if err := spec.matches(made); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestIDsFromOutsideNeverBecomePaths(t *testing.T) {
	outside := t.TempDir()
	s := open(t, filepath.Join(outside, "data"), Options{})
	victim := filepath.Join(outside, "victim.json")
	must(t, os.WriteFile(victim, []byte(`{"id":"../../victim","size":1}`), 0o600))
	for _, id := range []string{"../../victim", "..", ".", "", "/etc/passwd", "vol-", "vol-" + strings.Repeat("0", 31) + "/", oldVolume + "\n"} {
		if _, err := s.Volume(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Volume(%q): %v", id, err)
		}
		if _, err := s.Snapshot(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Snapshot(%q): %v", id, err)
		}
		if _, err := s.Create(t.Context(), Spec{Name: "n", Access: Access{Block: true}, Source: &Source{FromVolume, id}}); !errors.Is(err, ErrNotFound) {
			t.Errorf("Create from %q: %v", id, err)
		}
		must(t, s.Delete(t.Context(), id))
		must(t, s.DeleteSnapshot(t.Context(), id))
		must(t, s.SetPublished(id, map[string]Publication{"/x": {}}))
	}
	if _, err := os.Stat(victim); err != nil {
		t.Error(err)
	}
}

func TestADataDirectoryHasOneProcess(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	must(t, err)
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("the second open: %v", err)
	}
	must(t, s.Close())
	open(t, dir, Options{})
}

func TestRepeatedCallReturnsTheSameResult(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	now := func() time.Time { clock = clock.Add(time.Hour); return clock }
	dir := t.TempDir()
	spec := Spec{Name: "v", Range: Range{Required: Step}, Access: Access{Block: true}}
	s, err := Open(dir, Options{Capacity: 100 * Step, Now: now})
	must(t, err)
	v := mustCreate(t, s, spec)
	snap := mustSnapshot(t, s, "s", v.ID)
	must(t, s.Close())
	s = open(t, dir, Options{Capacity: 100 * Step, Now: now})
	if diff := cmp.Diff(v, mustCreate(t, s, spec)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(snap, mustSnapshot(t, s, "s", v.ID)); diff != "" {
		t.Error(diff)
	}
	// This holds after the source is deleted: a snapshot does not depend on it.
	must(t, s.Delete(t.Context(), v.ID))
	if diff := cmp.Diff(snap, mustSnapshot(t, s, "s", v.ID)); diff != "" {
		t.Error(diff)
	}
}

func raw(name string, steps int64) Spec {
	return Spec{Name: name, Range: Range{Required: steps * Step}, Access: Access{Block: true}}
}

func wantLeft(t *testing.T, s *Store, steps int64) {
	t.Helper()
	left, err := s.AvailableCapacity()
	must(t, err)
	if left != steps*Step {
		t.Errorf("%d bytes left, want %d", left, steps*Step)
	}
}

func TestCapacity(t *testing.T) {
	t.Run("volumes, snapshots and growth count and come back", func(t *testing.T) {
		s := open(t, t.TempDir(), Options{Capacity: 10 * Step})
		v := mustCreate(t, s, raw("a", 3))
		snap := mustSnapshot(t, s, "a", v.ID)
		wantLeft(t, s, 4)
		_, err := s.Expand(t.Context(), v.ID, Range{Required: 5 * Step})
		must(t, err)
		wantLeft(t, s, 2)
		must(t, s.DeleteSnapshot(t.Context(), snap.ID))
		must(t, s.Delete(t.Context(), v.ID))
		wantLeft(t, s, 10)
	})
	t.Run("reservations do not exceed the capacity", func(t *testing.T) {
		s := open(t, t.TempDir(), Options{Capacity: 10 * Step})
		v := mustCreate(t, s, raw("a", 8))
		_, err := s.Create(t.Context(), raw("b", 3))
		if !errors.Is(err, ErrOutOfCapacity) || !strings.Contains(err.Error(), "3 MiB are asked for and 2 MiB of 10 MiB are left") {
			t.Errorf("creating: %v", err)
		}
		if _, err := s.CreateSnapshot(t.Context(), "a", v.ID); !errors.Is(err, ErrOutOfCapacity) {
			t.Errorf("snapshot: %v", err)
		}
		if _, err := s.Expand(t.Context(), v.ID, Range{Required: 11 * Step}); !errors.Is(err, ErrOutOfCapacity) {
			t.Errorf("expanding: %v", err)
		}
		wantLeft(t, s, 2)
	})
	t.Run("creations in progress are counted", func(t *testing.T) {
		var s *Store
		tried := false
		s = open(t, t.TempDir(), Options{Capacity: 10 * Step, beforeStep: func(string) {
			if tried || s == nil { // it is being opened
				return
			}
			tried = true
			wantLeft(t, s, 4)
			if _, err := s.Create(t.Context(), raw("b", 5)); !errors.Is(err, ErrOutOfCapacity) {
				t.Errorf("while another is made: %v", err)
			}
		}})
		mustCreate(t, s, raw("a", 6))
		wantLeft(t, s, 4)
	})
}

func TestCapacityWithoutABoundIsWhatTheDiskHas(t *testing.T) {
	dir := disktest.Filesystem(t, disk.XFS, 512*Step)
	s := open(t, dir, Options{})
	before, err := s.AvailableCapacity()
	must(t, err)
	v := mustCreate(t, s, raw("a", 100))
	// Writing to a volume does not change the capacity; a reflinked snapshot reserves
	// its full size.
	must(t, os.WriteFile(s.ImagePath(v), make([]byte, 100*Step), 0o600))
	snap := mustSnapshot(t, s, "a", v.ID)
	if !snap.Shared {
		t.Error("the snapshot shares no blocks")
	}
	after, err := s.AvailableCapacity()
	must(t, err)
	if got := before - after; got < 200*Step || got > 203*Step {
		t.Errorf("100 MiB and a snapshot of them took %d bytes of what is left", got)
	}
}

func TestSources(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 1 << 40})
	mount := Access{Mount: true}
	v := mustCreate(t, s, Spec{Name: "v", Range: Range{Required: 400 * Step}, Access: mount, FSType: disk.XFS})
	v, err := s.SetFormat(v, Formatted)
	must(t, err)
	snap := mustSnapshot(t, s, "s", v.ID)
	tests := map[string]struct {
		ask  Spec
		want Volume
		err  error
	}{
		"no size uses the source's": {Spec{Access: mount, FSType: disk.XFS, Source: &Source{FromVolume, v.ID}}, Volume{Size: 400 * Step, Format: Formatted}, nil},
		"larger is possible":        {Spec{Access: mount, FSType: disk.XFS, Range: Range{Required: 500 * Step}, Source: &Source{FromSnapshot, snap.ID}}, Volume{Size: 500 * Step, Format: Formatted}, nil},
		"smaller is not":            {Spec{Access: mount, FSType: disk.XFS, Range: Range{Required: 399 * Step}, Source: &Source{FromSnapshot, snap.ID}}, Volume{}, ErrOutOfRange},
		"a limit below it is not":   {Spec{Access: mount, FSType: disk.XFS, Range: Range{Limit: 399 * Step}, Source: &Source{FromVolume, v.ID}}, Volume{}, ErrInvalid},
		"another filesystem is not": {Spec{Access: mount, FSType: disk.Ext4, Source: &Source{FromVolume, v.ID}}, Volume{}, ErrInvalid},
		"a raw view of it is":       {Spec{Access: Access{Block: true}, Source: &Source{FromVolume, v.ID}}, Volume{Size: 400 * Step, Format: Formatted}, nil},
		"no such snapshot":          {Spec{Access: mount, FSType: disk.XFS, Source: &Source{FromSnapshot, "snap-x"}}, Volume{}, ErrNotFound},
		"no such volume":            {Spec{Access: mount, FSType: disk.XFS, Source: &Source{FromVolume, snap.ID}}, Volume{}, ErrNotFound},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.ask.Name = name
			got, err := s.Create(t.Context(), tt.ask)
			if !errors.Is(err, tt.err) || got.Size != tt.want.Size || got.Format != tt.want.Format {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestExpand(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 1 << 40})
	v := mustCreate(t, s, Spec{Name: "v", Range: Range{Required: 4 * Step}, Access: Access{Block: true}})
	tests := []struct {
		name string
		ask  Range
		want int64
		err  error
	}{
		{"a size is required", Range{}, 0, ErrInvalid},
		{"smaller stays", Range{Required: Step}, 4 * Step, nil},
		{"a limit below its size cannot be met", Range{Limit: 3 * Step}, 0, ErrOutOfRange},
		{"larger grows", Range{Required: 6*Step - 1}, 6 * Step, nil},
		{"a repeated request changes nothing", Range{Required: 6*Step - 1}, 6 * Step, nil},
		{"rounding may not pass the limit", Range{Required: 7*Step - 1, Limit: 7*Step - 1}, 0, ErrOutOfRange},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := s.Expand(t.Context(), v.ID, tt.ask)
			if got.Size != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("got %d, %v; want %d, %v", got.Size, err, tt.want, tt.err)
			}
		})
	}
}

func TestPages(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 1 << 40})
	for n := range 7 {
		mustCreate(t, s, Spec{Name: fmt.Sprint(n), Range: Range{Required: Step}, Access: Access{Block: true}})
	}
	var seen []string
	for after, more := "", true; more; {
		var page []Volume
		var err error
		page, more, err = s.Volumes(after, 3)
		must(t, err)
		for _, v := range page {
			seen = append(seen, v.ID)
		}
		after = seen[len(seen)-1]
		// The token remains valid although its volume is deleted.
		must(t, s.Delete(t.Context(), after))
	}
	if len(seen) != 7 {
		t.Errorf("saw %d volumes of 7", len(seen))
	}
}

func TestSnapshotPagesOfOneVolume(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 1 << 40})
	for _, name := range []string{"a", "b"} {
		v := mustCreate(t, s, Spec{Name: name, Range: Range{Required: Step}, Access: Access{Block: true}})
		for n := range 4 {
			mustSnapshot(t, s, fmt.Sprint(name, n), v.ID)
		}
	}
	a := s.candidateIDs(volumePrefix, "a")[0]
	first, more, err := s.Snapshots(a, "", 3)
	must(t, err)
	if len(first) != 3 || !more {
		t.Fatalf("got %d, more = %t", len(first), more)
	}
	rest, more, err := s.Snapshots(a, first[2].ID, 3)
	must(t, err)
	if len(rest) != 1 || more || rest[0].VolumeID != a {
		t.Errorf("got %v, more = %t", rest, more)
	}
}

func TestHealth(t *testing.T) {
	tests := map[string]struct {
		harm       func(t *testing.T, record, image string)
		want       string
		wantDegree Severity
	}{
		"intact":                {func(*testing.T, string, string) {}, "", 0},
		"no image":              {func(t *testing.T, _, image string) { must(t, os.Remove(image)) }, "ImageMissing", DataLoss},
		"image cut off":         {func(t *testing.T, _, image string) { must(t, os.Truncate(image, Step)) }, "ImageCutOff", DataLoss},
		"record cut off":        {func(t *testing.T, record, _ string) { must(t, os.Truncate(record, 10)) }, "RecordDamaged", Inaccessible},
		"record of another":     {func(t *testing.T, record, _ string) { must(t, os.WriteFile(record, []byte(`{"id":"vol-x"}`), 0o600)) }, "RecordDamaged", Inaccessible},
		"record is a directory": {func(t *testing.T, record, _ string) { must(t, os.Remove(record)); must(t, os.Mkdir(record, 0o700)) }, "RecordDamaged", Inaccessible},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := Open(dir, Options{Capacity: 100 * Step})
			must(t, err)
			v := mustCreate(t, s, Spec{Name: "v", Range: Range{Required: 2 * Step}, Access: Access{Block: true}})
			other := mustCreate(t, s, Spec{Name: "other", Range: Range{Required: Step}, Access: Access{Block: true}})
			tt.harm(t, s.volumes.record(v.ID), s.volumes.image(v.ID))
			must(t, s.Close())

			s = open(t, dir, Options{Capacity: 100 * Step})
			wantRestUnharmed(t, s, other.ID)
			if tt.wantDegree == Inaccessible && fileSize(s.volumes.image(v.ID)) != 2*Step {
				t.Error("recovery took its image for garbage")
			}
			problems, err := s.Health(v.ID)
			must(t, err)
			var want []Problem
			if tt.want != "" {
				want = []Problem{{Severity: tt.wantDegree, Reason: tt.want}}
				if _, err := s.CreateSnapshot(t.Context(), "s", v.ID); !errors.Is(err, ErrDamaged) {
					t.Errorf("snapshot of it: %v", err)
				}
			}
			if diff := cmp.Diff(want, problems, cmpopts.IgnoreFields(Problem{}, "Message")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// wantRestUnharmed checks that the store and the other volume still work next to a
// damaged volume.
func wantRestUnharmed(t *testing.T, s *Store, other string) {
	t.Helper()
	if _, err := s.Volume(other); err != nil {
		t.Error(err)
	}
	if volumes, _, err := s.Volumes("", 0); err != nil || len(volumes) != 2 {
		t.Errorf("listed %v, %v", volumes, err)
	}
}

func TestADamagedVolumeCanBeDeleted(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 100 * Step})
	v := mustCreate(t, s, Spec{Name: "v", Range: Range{Required: Step}, Access: Access{Block: true}})
	must(t, os.WriteFile(s.volumes.record(v.ID), []byte("{"), 0o600))
	if _, err := s.Create(t.Context(), Spec{Name: "v", Access: Access{Block: true}}); !errors.Is(err, ErrDamaged) {
		t.Errorf("creating it again: %v", err)
	}
	must(t, s.Delete(t.Context(), v.ID))
	mustCreate(t, s, Spec{Name: "v", Range: Range{Required: Step}, Access: Access{Block: true}})
}

func TestLeftoversOfAFailedCallAreRemoved(t *testing.T) {
	s := open(t, t.TempDir(), Options{Capacity: 100 * Step})
	id, snapID := s.candidateIDs(volumePrefix, "v")[0], s.candidateIDs(snapshotPrefix, "s")[0]
	for _, image := range []string{s.volumes.image(id), s.snapshots.image(snapID)} {
		must(t, os.WriteFile(image, []byte("garbage"), 0o600))
	}
	v := mustCreate(t, s, raw("v", 1))
	wantContent(t, s.ImagePath(v), Step, "\x00")
	snap := mustSnapshot(t, s, "s", v.ID)
	wantContent(t, s.snapshots.image(snap.ID), Step, "\x00")
}

func TestAnInterruptedExpansionDoesNotHideDamage(t *testing.T) {
	w := newCrashTest(t)
	w.run(func(s *Store) {
		v, err := s.Volume(oldVolume)
		must(t, err)
		v.Growing = 9 * Step
		must(t, s.volumes.write(v))
		must(t, os.Truncate(s.ImagePath(v), Step))
	})
	w.run(func(s *Store) {
		if problems, err := s.Health(oldVolume); err != nil || len(problems) == 0 {
			t.Errorf("healthy after losing its end: %v", err)
		}
	})
}

func TestAVolumeInUseIsNotDeleted(t *testing.T) {
	disktest.NeedRoot(t)
	s := open(t, disktest.Dir(t), Options{Capacity: 100 * Step})
	v := mustCreate(t, s, Spec{Name: "v", Range: Range{Required: Step}, Access: Access{Block: true}})
	a, err := disk.Attach(s.ImagePath(v), true)
	must(t, err)
	must(t, a.Close())
	if err := s.Delete(t.Context(), v.ID); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), a.Path) {
		t.Errorf("got %v", err)
	}
	must(t, disk.Detach(s.ImagePath(v)))
	must(t, s.Delete(t.Context(), v.ID))
}

func TestLocks(t *testing.T) {
	t.Run("a call waits no longer than its caller", func(t *testing.T) {
		l := keyLocks{held: map[string]chan struct{}{}}
		unlock, err := l.lock(t.Context(), "a")
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.lock(ctx, "b", "a"); !errors.Is(err, ErrPending) {
			t.Errorf("got %v", err)
		}
		unlock()
		// The failed call has released the locks that it already had.
		again, err := l.lock(t.Context(), "a", "b")
		must(t, err)
		again()
		if len(l.held) != 0 {
			t.Errorf("left over: %v", l.held)
		}
	})
	t.Run("calls that need each other's locks do not block", func(t *testing.T) {
		l := keyLocks{held: map[string]chan struct{}{}}
		shared := map[string]int{}
		var wg sync.WaitGroup
		for n := range 200 {
			wg.Go(func() {
				keys := []string{"a", "b"}
				if n%2 == 0 {
					keys = []string{"b", "a", "b"}
				}
				unlock, err := l.lock(t.Context(), keys...)
				if err != nil {
					t.Error(err)
					return
				}
				defer unlock()
				shared["n"]++ // the race detector watches
			})
		}
		wg.Wait()
		if shared["n"] != 200 {
			t.Errorf("%d of 200", shared["n"])
		}
	})
}
