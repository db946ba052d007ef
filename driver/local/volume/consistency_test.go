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

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
)

// waitTimeout limits waits for something that must happen.
const waitTimeout = 30 * time.Second

func TestCheckConsistent(t *testing.T) {
	still, moving := disk.Freeze{Quiesced: true}, disk.Freeze{}
	tests := map[string]struct {
		holds []disk.Freeze
		ok    bool
	}{
		"quiesced images have any point in time":    {[]disk.Freeze{still, still, still}, true},
		"one changing image sets the point in time": {[]disk.Freeze{still, moving, still}, true},
		"a single changing image is consistent":     {[]disk.Freeze{moving}, true},
		"two changing images are not consistent":    {[]disk.Freeze{moving, still, moving}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checkConsistent([]Volume{{ID: "a"}, {ID: "b"}, {ID: "c"}}[:len(tt.holds)], tt.holds)
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrInUse) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// pair is two mounted volumes, and a workload that writes to both.
type pair struct {
	t     *testing.T
	s     *Store
	ids   []string
	paths [2]string

	mu     sync.Mutex // one pair of writes at a time
	number int
}

// between lets a test act between the copies of a group's two members.
type between struct {
	do     func()
	copies int
}

func (b *between) before(step string) {
	if step != "copy image" || b.do == nil {
		return
	}
	if b.copies++; b.copies%2 != 0 {
		return
	}
	// Run in another goroutine: the caller's thread may not see the mounts.
	var failure any
	var done sync.WaitGroup
	done.Go(func() {
		defer func() { failure = recover() }()
		b.do()
	})
	done.Wait()
	if failure != nil {
		panic(failure)
	}
}

func newPair(t *testing.T, data string, o Options, b *between) *pair {
	t.Helper()
	disktest.NeedRoot(t)
	o.Capacity, o.beforeStep = 1<<40, b.before
	p := &pair{t: t, s: open(t, filepath.Join(data, "data"), o)}
	for i := range p.paths {
		v := mustCreate(t, p.s, Spec{Name: fmt.Sprint(i), Range: Range{Required: 16 * Step}, Access: Access{Mount: true}, FSType: disk.Ext4})
		must(t, disk.Format(disk.Ext4, p.s.ImagePath(v)))
		v, err := p.s.SetFormat(v, Formatted)
		must(t, err)
		p.ids, p.paths[i] = append(p.ids, v.ID), p.mount(v)
		must(t, os.WriteFile(filepath.Join(p.paths[i], "number"), []byte("00000000"), 0o600))
	}
	p.write() // so that both numbers are on disk
	return p
}

func (p *pair) mount(v Volume) string {
	p.t.Helper()
	path := filepath.Join(disktest.Dir(p.t), "mnt")
	must(p.t, os.Mkdir(path, 0o755))
	a, err := disk.Attach(p.s.ImagePath(v), false)
	must(p.t, err)
	must(p.t, disk.Mount(v.FSType, a.Device, path, nil))
	must(p.t, a.Close())
	return path
}

// write writes the next number to the first volume and, when that is on disk, to the
// second.
func (p *pair) write() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	for _, path := range p.paths {
		f, err := os.OpenFile(filepath.Join(path, "number"), os.O_WRONLY|unix.O_SYNC, 0)
		if err == nil {
			_, err = fmt.Fprintf(f, "%08d", p.number)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			p.t.Error(err)
			return
		}
	}
}

// writing writes continuously until the test ends.
func (p *pair) writing() {
	ctx, stop := context.WithCancel(context.Background())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			p.write()
		}
	})
	p.t.Cleanup(func() {
		stop()
		writer.Wait()
	})
}

// frozen reports whether the filesystem at path is frozen: it then cannot be frozen
// again. It leaves the state unchanged.
func frozen(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	const freeze, thaw = 0xc0045877, 0xc0045878
	err = unix.IoctlSetInt(int(f.Fd()), freeze, 0)
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	must(t, err)
	must(t, unix.IoctlSetInt(int(f.Fd()), thaw, 0))
	return false
}

func (p *pair) frozen() (some bool) {
	p.t.Helper()
	return frozen(p.t, p.paths[0]) || frozen(p.t, p.paths[1])
}

// wantFree checks that nothing is frozen and that no freeze is recorded.
func (p *pair) wantFree() {
	p.t.Helper()
	if p.frozen() {
		p.t.Error("writers still have to wait")
	}
	must(p.t, filepath.WalkDir(filepath.Join(p.s.Dir(), "frozen"), func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			p.t.Errorf("still on record: %s", path)
		}
		return err
	}))
}

// restored returns the numbers in volumes restored from the members of a group.
func (p *pair) restored(g Group) (numbers [2]int) {
	p.t.Helper()
	for i, m := range p.s.Members(g) {
		v := mustCreate(p.t, p.s, Spec{Name: "of " + m.ID, Access: Access{Mount: true}, FSType: m.FSType, Source: &Source{FromSnapshot, m.ID}})
		data, err := os.ReadFile(filepath.Join(p.mount(v), "number"))
		must(p.t, err)
		_, err = fmt.Sscan(string(data), &numbers[i])
		must(p.t, err)
	}
	return numbers
}

// onEach runs f with data directories on filesystems with and without reflinks.
func onEach(t *testing.T, f func(t *testing.T, data string)) {
	t.Parallel()
	t.Run("with reflinks", func(t *testing.T) {
		t.Parallel()
		f(t, disktest.Filesystem(t, disk.XFS, 512*Step))
	})
	t.Run("without reflinks", func(t *testing.T) {
		t.Parallel()
		f(t, disktest.Filesystem(t, disk.Ext4, 512*Step))
	})
}

// Every number in the second volume was written to the first one before. The workload
// writes continuously, and between the two copies whenever nothing prevents it.
func TestGroupIsConsistent(t *testing.T) {
	onEach(t, func(t *testing.T, data string) {
		var b between
		p := newPair(t, data, Options{}, &b)
		p.wantConsistent(&b, func(take func()) { take() })
	})
}

// wantConsistent takes groups of the pair, each inside run.
func (p *pair) wantConsistent(b *between, run func(take func())) {
	p.t.Helper()
	p.writing()
	groups := make([]Group, 5)
	b.do = func() {
		if !p.frozen() {
			p.write()
		}
	}
	run(func() {
		for i := range groups {
			groups[i] = mustGroup(p.t, p.s, fmt.Sprint(i), p.ids...)
		}
	})
	b.do = nil
	for _, g := range groups {
		if n := p.restored(g); n[0] < n[1] || n[0]-n[1] > 1 {
			p.t.Errorf("group %s has %d in the first volume and %d in the second", g.Name, n[0], n[1])
		}
	}
	p.wantFree()
}

// After any failure between the copies, writers continue and either all members exist
// or none.
func TestWritersResumeAfterAnyFailure(t *testing.T) {
	take := func(ctx context.Context, p *pair) (err error) {
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("panic: %v", r)
			}
		}()
		_, err = p.s.CreateGroup(ctx, "g", p.ids)
		return err
	}
	tests := map[string]struct {
		options Options
		between func(p *pair, cancel func())
		wants   string // part of the error, "" for none
	}{
		"no failure":         {Options{}, func(*pair, func()) {}, ""},
		"the caller cancels": {Options{}, func(_ *pair, cancel func()) { cancel() }, ""},
		"the second copy fails": {Options{}, func(p *pair, _ func()) {
			id := memberID(p.s.candidateIDs(groupPrefix, "g")[0], p.ids[1])
			must(p.t, os.WriteFile(p.s.snapshots.image(id), nil, 0o600))
		}, "file exists"},
		"the copy panics": {Options{}, func(*pair, func()) { panic("on purpose") }, "on purpose"},
		"the time is up": {Options{MaxFreeze: time.Millisecond}, func(p *pair, _ func()) {
			for end := time.Now().Add(waitTimeout); p.frozen() && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}, "stay frozen"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b between
			p := newPair(t, disktest.Dir(t), tt.options, &b)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			b.do = func() { tt.between(p, cancel) }
			err := take(ctx, p)
			if (err == nil) != (tt.wants == "") || err != nil && !strings.Contains(err.Error(), tt.wants) {
				t.Errorf("got %v", err)
			}
			p.wantFree()
			if _, err := p.s.Group(p.s.candidateIDs(groupPrefix, "g")[0]); (err == nil) != (tt.wants == "") {
				t.Errorf("the group: %v", err)
			}
			b.do = nil
			p.s.maxFreeze = DefaultMaxFreeze
			must(t, take(t.Context(), p)) // the repeated request succeeds
			wantIntact(t, p.s)
			p.wantFree()
		})
	}
}

// handed publishes a raw device to a workload.
func handed(t *testing.T, s *Store, name string) string {
	t.Helper()
	v := mustCreate(t, s, raw(name, 1))
	a, err := disk.Attach(s.ImagePath(v), true)
	must(t, err)
	must(t, a.Close())
	target := filepath.Join(disktest.Dir(t), "node")
	must(t, os.WriteFile(target, nil, 0o600))
	must(t, disk.Bind(a.Path, target, false))
	t.Cleanup(func() { // before the data directory goes, after which nobody finds the device
		must(t, disk.Unmount(target))
		must(t, disk.Detach(s.ImagePath(v)))
	})
	return v.ID
}

func TestRawDevicesInAGroup(t *testing.T) {
	t.Parallel()
	p := newPair(t, disktest.Filesystem(t, disk.XFS, 512*Step), Options{}, &between{})
	first, second := handed(t, p.s, "first"), handed(t, p.s, "second")
	mustGroup(t, p.s, "one beside filesystems", append([]string{first}, p.ids...)...)
	_, err := p.s.CreateGroup(t.Context(), "two", []string{first, p.ids[0], second})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), first) || !strings.Contains(err.Error(), second) {
		t.Errorf("two that are written to: %v", err)
	}
	p.wantFree()
}

// fsfreeze freezes or thaws the pair's filesystems, as a backup does.
func (p *pair) fsfreeze(freeze bool) {
	p.t.Helper()
	for _, path := range p.paths {
		f, err := os.Open(path)
		must(p.t, err)
		defer f.Close()
		request := uint(0xc0045878)
		if freeze {
			request = 0xc0045877
		}
		must(p.t, unix.IoctlSetInt(int(f.Fd()), request, 0))
	}
}

// A backup has frozen the filesystems. Snapshots succeed while they stay frozen. If
// the backup thaws them during a copy the snapshot fails, and the next attempt freezes
// them itself.
func TestFilesystemFrozenByABackup(t *testing.T) {
	takes := map[string]func(p *pair, name string) error{
		"a group": func(p *pair, name string) error {
			_, err := p.s.CreateGroup(p.t.Context(), name, p.ids)
			return err
		},
		"a snapshot": func(p *pair, name string) error {
			_, err := p.s.CreateSnapshot(p.t.Context(), name, p.ids[1])
			return err
		},
		"a clone": func(p *pair, name string) error {
			_, err := p.s.Create(p.t.Context(), Spec{Name: name, Access: Access{Mount: true}, FSType: disk.Ext4, Source: &Source{FromVolume, p.ids[1]}})
			return err
		},
	}
	onEach(t, func(t *testing.T, data string) {
		for name, take := range takes {
			t.Run(name, func(t *testing.T) {
				var b between
				p := newPair(t, filepath.Join(data, name), Options{}, &b)
				p.fsfreeze(true)
				must(t, take(p, "kept frozen"))
				if !p.frozen() {
					t.Error("it was not ours to thaw")
				}
				b.copies, b.do = 1, func() { // between the copies, or before the only one
					b.do = nil
					p.fsfreeze(false)
					p.write()
				}
				if err := take(p, "thawed"); !errors.Is(err, disk.ErrThawed) {
					t.Errorf("got %v", err)
				}
				p.wantFree()
				wantIntact(t, p.s)
				must(t, take(p, "thawed"))
				wantIntact(t, p.s)
				p.wantFree()
			})
		}
	})
}

// An inconsistent group would have the second number without the first.
func TestGroupFrozenByABackupIsConsistent(t *testing.T) {
	onEach(t, func(t *testing.T, data string) {
		var b between
		p := newPair(t, data, Options{}, &b)
		p.fsfreeze(true)
		g := mustGroup(t, p.s, "kept frozen", p.ids...)
		p.fsfreeze(false)
		if n := p.restored(g); n[0] != n[1] || n[0] != p.number {
			t.Errorf("it has %v and %d was written", n, p.number)
		}
		p.fsfreeze(true)
		b.copies, b.do = 0, func() {
			b.do = nil
			p.fsfreeze(false)
			p.write()
		}
		if _, err := p.s.CreateGroup(t.Context(), "torn", p.ids); !errors.Is(err, disk.ErrThawed) {
			t.Errorf("got %v", err)
		}
		p.wantFree()
		g = mustGroup(t, p.s, "torn", p.ids...)
		if n := p.restored(g); n[0] != n[1] || n[0] != p.number {
			t.Errorf("it has %v and %d was written", n, p.number)
		}
	})
}
