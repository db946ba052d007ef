package volume

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// crash is the panic value of a simulated crash.
type crash struct{ step string }

// Storage IDs for tests that need to predict IDs: the current storage, and an earlier
// one of the same data directory.
const (
	testStorage    = "0123456789ab"
	earlierStorage = "ba9876543210-n1"
)

// is gives the data directory this storage ID.
func is(t *testing.T, dir string, st storage) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	must(t, fileOps{beforeStep: func(string) {}}.writeRecord(filepath.Join(dir, "storage"+recordSuffix), st))
}

// crashTest is a data directory in which processes crash.
type crashTest struct {
	t   *testing.T
	dir string
}

// newCrashTest creates the volume and the group "earlier" of an earlier storage, the
// volume "old" with content and its snapshot "old", the volume "beside" with content,
// the group "old" of both, and capacity for what the tests create.
func newCrashTest(t *testing.T) *crashTest {
	w := &crashTest{t: t, dir: t.TempDir()}
	is(t, w.dir, storage{ID: earlierStorage})
	w.run(func(s *Store) {
		v := mustCreate(t, s, raw("earlier", 1))
		mustGroup(t, s, "earlier", v.ID)
	})
	is(t, w.dir, storage{ID: testStorage})
	w.run(func(s *Store) {
		v := mustCreate(t, s, Spec{Name: "old", Range: Range{Required: 4 * Step}, Access: Access{Block: true}})
		fill(t, s.ImagePath(v), "old content")
		mustSnapshot(t, s, "old", v.ID)
		b := mustCreate(t, s, Spec{Name: "beside", Range: Range{Required: 2 * Step}, Access: Access{Block: true}})
		fill(t, s.ImagePath(b), "content beside")
		mustGroup(t, s, "old", v.ID, b.ID)
	})
	return w
}

// run runs f in a process that does not crash.
func (w *crashTest) run(f func(*Store)) {
	w.t.Helper()
	if died, _ := w.crashAt(-1, f); died {
		w.t.Fatal("died")
	}
}

// crashAt runs f in a process that crashes before step n, counted from the moment the
// store is open, and returns the steps that it reached.
func (w *crashTest) crashAt(n int, f func(*Store)) (died bool, steps []string) {
	w.t.Helper()
	armed := false
	s, err := Open(w.dir, Options{Capacity: 1 << 30, beforeStep: func(step string) {
		if !armed {
			return
		}
		if len(steps) == n {
			panic(crash{step})
		}
		steps = append(steps, step)
	}})
	must(w.t, err)
	defer func() {
		must(w.t, s.Close())
		if r := recover(); r != nil {
			if _, ok := r.(crash); !ok {
				panic(r)
			}
			died = true
		}
	}()
	armed = true
	f(s)
	return false, steps
}

// files lists the files of the data directory.
func (w *crashTest) files() []string {
	w.t.Helper()
	var files []string
	must(w.t, filepath.WalkDir(w.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, strings.TrimPrefix(path, w.dir))
		}
		return err
	}))
	return files
}

func fill(t *testing.T, image, content string) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString(content)
	must(t, err)
}

func mustCreate(t *testing.T, s *Store, spec Spec) Volume {
	t.Helper()
	v, err := s.Create(t.Context(), spec)
	must(t, err)
	return v
}

func mustSnapshot(t *testing.T, s *Store, name, volumeID string) Snapshot {
	t.Helper()
	snap, err := s.CreateSnapshot(t.Context(), name, volumeID)
	must(t, err)
	return snap
}

func mustGroup(t *testing.T, s *Store, name string, volumeIDs ...string) Group {
	t.Helper()
	g, err := s.CreateGroup(t.Context(), name, volumeIDs)
	must(t, err)
	return g
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// calls are the calls in progress when the process crashes, and what must hold after
// the next process has repeated the call.
var (
	oldVolume = idFor(volumePrefix, testStorage, "old")
	oldCopy   = idFor(snapshotPrefix, testStorage, "old")
	beside    = idFor(volumePrefix, testStorage, "beside")
	earlier   = idFor(volumePrefix, earlierStorage, "earlier")
	oldGroup  = Group{ID: idFor(groupPrefix, testStorage, "old"), VolumeIDs: []string{oldVolume, beside}}

	earlierGroup = Group{ID: idFor(groupPrefix, earlierStorage, "earlier"), VolumeIDs: []string{earlier}}

	calls = map[string]struct {
		call  func(t *testing.T, s *Store)
		check func(t *testing.T, s *Store)
	}{
		"creating a volume": {
			func(t *testing.T, s *Store) {
				mustCreate(t, s, Spec{Name: "new", Range: Range{Required: 2 * Step}, Access: Access{Block: true}})
			},
			func(t *testing.T, s *Store) { wantImage(t, s, idFor(volumePrefix, testStorage, "new"), 2*Step, "") },
		},
		"cloning a volume": {
			func(t *testing.T, s *Store) {
				mustCreate(t, s, Spec{Name: "new", Range: Range{Required: 8 * Step}, Access: Access{Block: true}, Source: &Source{FromVolume, oldVolume}})
			},
			func(t *testing.T, s *Store) {
				wantImage(t, s, idFor(volumePrefix, testStorage, "new"), 8*Step, "old content")
			},
		},
		"restoring a snapshot": {
			func(t *testing.T, s *Store) {
				mustCreate(t, s, Spec{Name: "new", Access: Access{Block: true}, Source: &Source{FromSnapshot, oldCopy}})
			},
			func(t *testing.T, s *Store) {
				wantImage(t, s, idFor(volumePrefix, testStorage, "new"), 4*Step, "old content")
			},
		},
		"taking a snapshot": {
			func(t *testing.T, s *Store) { mustSnapshot(t, s, "new", oldVolume) },
			func(t *testing.T, s *Store) {
				snap, err := s.Snapshot(idFor(snapshotPrefix, testStorage, "new"))
				must(t, err)
				wantContent(t, s.snapshots.image(snap.ID), 4*Step, "old content")
			},
		},
		"taking a group of snapshots": {
			func(t *testing.T, s *Store) { mustGroup(t, s, "new", oldVolume, beside) },
			func(t *testing.T, s *Store) {
				g, err := s.Group(idFor(groupPrefix, testStorage, "new"))
				must(t, err)
				wantContent(t, s.snapshots.image(g.MemberIDs()[0]), 4*Step, "old content")
				wantContent(t, s.snapshots.image(g.MemberIDs()[1]), 2*Step, "content beside")
			},
		},
		"restoring a member": {
			func(t *testing.T, s *Store) {
				mustCreate(t, s, Spec{Name: "new", Access: Access{Block: true}, Source: &Source{FromSnapshot, oldGroup.MemberIDs()[1]}})
			},
			func(t *testing.T, s *Store) {
				wantImage(t, s, idFor(volumePrefix, testStorage, "new"), 2*Step, "content beside")
			},
		},
		"deleting a group": {
			func(t *testing.T, s *Store) { must(t, s.DeleteGroup(t.Context(), oldGroup.ID, oldGroup.MemberIDs())) },
			func(t *testing.T, s *Store) {
				for _, id := range oldGroup.MemberIDs() {
					if _, err := s.Snapshot(id); err == nil {
						t.Errorf("snapshot %s is still there", id)
					}
				}
			},
		},
		"expanding a volume": {
			func(t *testing.T, s *Store) {
				_, err := s.Expand(t.Context(), oldVolume, Range{Required: 16 * Step})
				must(t, err)
			},
			func(t *testing.T, s *Store) { wantImage(t, s, oldVolume, 16*Step, "old content") },
		},
		"deleting a volume": {
			func(t *testing.T, s *Store) { must(t, s.Delete(t.Context(), oldVolume)) },
			func(t *testing.T, s *Store) {
				if _, err := s.Volume(oldVolume); err == nil {
					t.Error("the volume is still there")
				}
			},
		},
		"deleting a volume of an earlier storage": {
			func(t *testing.T, s *Store) { must(t, s.Delete(t.Context(), earlier)) },
			func(t *testing.T, s *Store) {
				if _, err := s.Volume(earlier); err == nil {
					t.Error("the volume is still there")
				}
				must(t, s.Delete(t.Context(), earlier))
			},
		},
		"deleting a group of an earlier storage": {
			func(t *testing.T, s *Store) {
				must(t, s.DeleteGroup(t.Context(), earlierGroup.ID, earlierGroup.MemberIDs()))
			},
			func(t *testing.T, s *Store) {
				if _, err := s.Snapshot(earlierGroup.MemberIDs()[0]); err == nil {
					t.Error("the member is still there")
				}
				must(t, s.DeleteGroup(t.Context(), earlierGroup.ID, earlierGroup.MemberIDs()))
			},
		},
		"deleting a snapshot": {
			func(t *testing.T, s *Store) { must(t, s.DeleteSnapshot(t.Context(), oldCopy)) },
			func(t *testing.T, s *Store) {
				if _, err := s.Snapshot(oldCopy); err == nil {
					t.Error("the snapshot is still there")
				}
			},
		},
	}
)

func wantImage(t *testing.T, s *Store, id string, size int64, content string) {
	t.Helper()
	v, err := s.Volume(id)
	must(t, err)
	if v.Size != size || v.Growing != 0 {
		t.Errorf("size = %d, growing = %d; want %d", v.Size, v.Growing, size)
	}
	wantContent(t, s.ImagePath(v), size, content)
}

func wantContent(t *testing.T, image string, size int64, content string) {
	t.Helper()
	data, err := os.ReadFile(image)
	must(t, err)
	if int64(len(data)) != size || !bytes.HasPrefix(data, []byte(content)) {
		t.Errorf("the image has %d bytes and begins with %q", len(data), data[:min(len(data), 16)])
	}
}

// A process may crash before any step. After the restart every recorded volume is
// intact, nothing else occupies space, and the repeated call has the same result as an
// uninterrupted one.
func TestEveryCallSurvivesACrashBeforeAnyStep(t *testing.T) {
	for name, tt := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clean := newCrashTest(t)
			_, steps := clean.crashAt(-1, func(s *Store) { tt.call(t, s) })
			for n, step := range steps {
				t.Run(fmt.Sprintf("%d %s", n, step), func(t *testing.T) {
					w := newCrashTest(t)
					if died, _ := w.crashAt(n, func(s *Store) { tt.call(t, s) }); !died {
						t.Fatal("the process did not die")
					}
					w.run(func(s *Store) {
						wantIntact(t, s)
						tt.call(t, s)
						tt.check(t, s)
						wantIntact(t, s)
					})
					if diff := cmp.Diff(clean.files(), w.files()); diff != "" {
						t.Error(diff)
					}
				})
			}
		})
	}
}

// wantIntact checks that each item has its image and each image its item.
func wantIntact(t *testing.T, s *Store) {
	t.Helper()
	volumes, _, err := s.Volumes("", 0)
	must(t, err)
	for _, v := range volumes {
		problems, err := s.Health(v.ID)
		must(t, err)
		if len(problems) > 0 {
			t.Errorf("volume %s: %v", v.Name, problems)
		}
		wantContent(t, s.ImagePath(v), v.Size, "")
	}
	snapshots, _, err := s.Snapshots("", "", 0)
	must(t, err)
	for _, snap := range snapshots {
		wantContent(t, s.snapshots.image(snap.ID), snap.Size, "")
	}
	for dir, items := range map[string]int{s.volumes.dir: len(volumes), s.snapshots.dir: len(snapshots)} {
		for _, suffix := range []string{imageSuffix, recordSuffix} {
			files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
			must(t, err)
			if len(files) != items {
				t.Errorf("%d files %s for %d items in %s", len(files), suffix, items, dir)
			}
		}
	}
	wantIntactGroups(t, s, snapshots)
}

// wantIntactGroups checks that each group has all its members, and each member its
// group.
func wantIntactGroups(t *testing.T, s *Store, snapshots []Snapshot) {
	t.Helper()
	members := map[string]int{}
	for _, snap := range snapshots {
		if snap.GroupID != "" {
			members[snap.GroupID]++
		}
	}
	groups, err := s.groups.list()
	must(t, err)
	for _, id := range groups {
		g, err := s.Group(id)
		must(t, err)
		if members[id] != len(g.VolumeIDs) {
			t.Errorf("group %s has %d of %d members", g.Name, members[id], len(g.VolumeIDs))
		}
		delete(members, id)
	}
	if len(members) > 0 {
		t.Errorf("members without a group: %v", members)
	}
}

// The kernel may write files in any order that syncs do not exclude, so the order of
// syncs decides what survives a power loss.
func TestDataIsSyncedBeforeItsRecord(t *testing.T) {
	for name, tt := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newCrashTest(t)
			_, steps := w.crashAt(-1, func(s *Store) { tt.call(t, s) })
			for i := range steps {
				if wrong := disorder(steps, i); wrong != "" {
					t.Errorf("%s: %v", wrong, steps)
				}
			}
		})
	}
}

// disorder describes what is wrong with the position of step i.
func disorder(steps []string, i int) string {
	switch steps[i] {
	case "rename record":
		if steps[i-1] != "sync record" || steps[i+1] != "sync directory" {
			return "the record was not synced around its rename"
		}
	case "create image", "copy image", "lengthen image":
		synced, recorded := slices.Index(steps[i:], "sync image"), slices.Index(steps[i:], "rename record")
		if synced < 0 || recorded < synced {
			return "the image was not synced before its record"
		}
	case "remove " + imageSuffix:
		// The first step of each creation removes leftovers.
		if i > 0 && steps[i-1] != "sync directory" {
			return "the image was removed before its record was gone for good"
		}
	}
	return ""
}
