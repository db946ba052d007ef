package volume

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/disk/disktest"
)

// onNode attaches the pair's volumes to a node, which serves freeze requests until end
// is called.
func (p *pair) onNode(limit time.Duration) (end func()) {
	p.t.Helper()
	node := open(p.t, p.s.Dir(), Options{Shared: true, Node: "n1", NodeOnly: true, MaxFreeze: limit})
	for _, id := range p.ids {
		_, err := p.s.Attach(p.t.Context(), id, Attachment{Node: "n1"})
		must(p.t, err)
	}
	h, err := node.NewFreezeServer()
	must(p.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := h.Serve(ctx); err != nil {
			p.t.Error(err)
		}
	})
	end = func() {
		cancel()
		served.Wait()
	}
	p.t.Cleanup(end)
	return end
}

// hiddenMounts runs f as a process that cannot freeze what the node has mounted, like
// the controller: on a thread of another user, who may open the same files. A separate
// mount namespace would pin mounts that other tests unmount meanwhile.
func (p *pair) hiddenMounts(f func()) {
	p.t.Helper()
	const nobody = 65534
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread()       // for good: the thread ends with the goroutine
		const noSetuidFixup = 1 << 2 // SECBIT_NO_SETUID_FIXUP: the capabilities stay
		if err := unix.Prctl(unix.PR_SET_SECUREBITS, noSetuidFixup, 0, 0, 0); err != nil {
			done <- err
			return
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); errno != 0 {
			done <- errno
			return
		}
		f()
	}()
	must(p.t, <-done)
}

func (p *pair) takeWithHiddenMounts() (err error) {
	p.t.Helper()
	p.hiddenMounts(func() { _, err = p.s.CreateGroup(p.t.Context(), "g", p.ids) })
	return err
}

func TestNodeFreezesVolumesHiddenFromTheController(t *testing.T) {
	onEach(t, func(t *testing.T, data string) {
		var b between
		p := newPair(t, data, Options{Shared: true}, &b)
		p.onNode(0)
		p.wantConsistent(&b, p.hiddenMounts)
	})
}

func TestWritersOnANodeResumeAfterAnyFailure(t *testing.T) {
	thawed := func(p *pair) {
		for end := time.Now().Add(waitTimeout); p.frozen() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
	}
	tests := map[string]struct {
		longest time.Duration
		between func(p *pair, endNode func())
	}{
		"the node ends":  {0, func(_ *pair, endNode func()) { endNode() }},
		"the time is up": {time.Millisecond, func(p *pair, _ func()) { thawed(p) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b between
			p := newPair(t, disktest.Dir(t), Options{Shared: true}, &b)
			endNode := p.onNode(tt.longest)
			b.do = func() { tt.between(p, endNode) }
			if err := p.takeWithHiddenMounts(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "to the end") {
				t.Errorf("got %v", err)
			}
			p.wantFree()
			must(t, p.s.DeleteGroup(t.Context(), p.s.candidateIDs(groupPrefix, "g")[0], nil))
			wantNothing(t, p.s)
		})
	}
	t.Run("the controller crashes", func(t *testing.T) {
		t.Parallel()
		p := newPair(t, disktest.Dir(t), Options{Shared: true}, &between{})
		p.onNode(0)
		conn, err := withShortPath(p.s.nodesDir(), "n1"+socketSuffix, dialUnix)
		must(t, err)
		_, err = conn.Write([]byte(p.ids[0] + "\n"))
		must(t, err)
		_, err = conn.Read(make([]byte, 64)) // the node responds when the volume is frozen
		must(t, err)
		if !frozen(t, p.paths[0]) {
			t.Error("it is not frozen")
		}
		must(t, conn.Close())
		thawed(p)
		p.wantFree()
	})
}

// A foreign thaw on a node is reported as ErrThawed: a retry can succeed.
func TestForeignThawOnANodeIsDetected(t *testing.T) {
	t.Parallel()
	var b between
	p := newPair(t, disktest.Dir(t), Options{Shared: true}, &b)
	p.onNode(0)
	b.do = func() {
		b.do = nil
		p.fsfreeze(false)
	}
	if err := p.takeWithHiddenMounts(); !errors.Is(err, disk.ErrThawed) || !strings.Contains(err.Error(), "node n1") {
		t.Errorf("got %v", err)
	}
	p.wantFree()
	must(t, p.takeWithHiddenMounts())
	wantIntact(t, p.s)
	p.wantFree()
}

// If a node does not respond, no group is taken of a volume that it may write to, and
// no single snapshot either unless it can be a reflink.
func TestUnreachableNodeMeansNotQuiesced(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fsType string
		single error
	}{
		"with reflinks":    {disk.XFS, nil},
		"without reflinks": {disk.Ext4, ErrInUse},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, disktest.Filesystem(t, tt.fsType, 512*Step), Options{Shared: true}, &between{})
			p.onNode(0)()
			if err := p.takeWithHiddenMounts(); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "no point in time in common") {
				t.Errorf("a group: %v", err)
			}
			p.hiddenMounts(func() {
				if _, err := p.s.CreateSnapshot(t.Context(), "s", p.ids[0]); !errors.Is(err, tt.single) {
					t.Errorf("a single one: %v", err)
				}
			})
		})
	}
}

// A restarted node thaws what its dead process had frozen.
func TestRestartedNodeThawsItsVolumes(t *testing.T) {
	t.Parallel()
	p := newPair(t, disktest.Dir(t), Options{Shared: true}, &between{})
	died := open(t, p.s.Dir(), Options{Shared: true, Node: "n1", NodeOnly: true})
	_, err := died.freezer.Quiesce(p.s.volumes.image(p.ids[0]))
	must(t, err)
	must(t, died.Close())
	if !p.frozen() {
		t.Error("it is not frozen")
	}
	open(t, p.s.Dir(), Options{Shared: true, Node: "n1", NodeOnly: true})
	p.wantFree()
}

// A replica that only publishes may start while the controller has a filesystem
// frozen.
func TestAttachOnlyProcessThawsNothing(t *testing.T) {
	t.Parallel()
	p := newPair(t, disktest.Dir(t), Options{Shared: true}, &between{})
	freeze, err := p.s.freezer.Quiesce(p.s.volumes.image(p.ids[0]))
	must(t, err)
	open(t, p.s.Dir(), Options{Shared: true, NodeOnly: true})
	if !p.frozen() {
		t.Error("it is no longer frozen")
	}
	must(t, freeze.Thaw())
	p.wantFree()
}
