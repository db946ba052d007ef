package restore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// What is fetched is verified in the same pass: whatever is wrong with it, no container is
// touched, and nothing is left on the node.
func TestWrongDataAreNeverUsed(t *testing.T) {
	tests := map[string]func(archive []byte, other []byte) []byte{
		"a changed byte": func(a, _ []byte) []byte {
			a[len(a)/2] ^= 1
			return a
		},
		"a part is missing":                      func(a, _ []byte) []byte { return a[:len(a)-100] },
		"another archive of the same container":  func(_, other []byte) []byte { return other },
		"the frames of an archive, and no index": func(a, _ []byte) []byte { return a[:len(a)/2] },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			n := newSweptNode(t, true)
			n.fault.at = -1
			other, _ := newArchive(t, "main", "{}") // It has a salt of its own.
			n.archive = change(n.archive, other)
			n.run()
			if c := conditionOf(n.pod()); c == nil || c.Reason != v1alpha1.ReasonRestoreFailed {
				t.Errorf("the condition is %+v, want the reason %s", c, v1alpha1.ReasonRestoreFailed)
			}
			if len(n.runs) != 1 || !n.alive {
				t.Errorf("the containers were %q: the running one must go on", n.runs)
			}
			n.checkNothingLeft(t)
		})
	}
}

// A failed fetch leaves nothing on the node, also while it is to be repeated.
func TestNothingIsLeftOfAFailedFetch(t *testing.T) {
	whole := newSweptNode(t, true)
	whole.fault.at = -1
	whole.run()
	for at, call := range whole.calls {
		if call != "read" && call != "key" && call != "open" {
			continue
		}
		n := newSweptNode(t, true)
		n.fault = fault{"error", at}
		n.startAgent()
		for len(n.calls) <= at {
			n.step()
		}
		n.checkNothingLeft(t)
	}
}

// If one container cannot be fetched, nothing is left of the others either.
func TestNothingIsLeftOfTheOtherContainers(t *testing.T) {
	for name, tt := range map[string]struct {
		hurt func(*state, *meeting)
		want error
	}{
		"it cannot be opened":      {func(_ *state, m *meeting) { delete(m.data, "b") }, store.ErrUnavailable},
		"its archive was replaced": {func(s *state, _ *meeting) { s.checkpoint.Status.Containers[1].Digest = "another" }, archive.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			r, s, meeting := newMeeting(t, "a", "b")
			tt.hurt(s, meeting)
			if err := r.stage(t.Context(), s, s.containers); !errors.Is(err, tt.want) {
				t.Errorf("the error is %v, want %v", err, tt.want)
			}
			for _, c := range s.containers {
				if _, err := os.Stat(c.place.DataDir()); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the directory of container %s is still there: %v", c.name, err)
				}
				if _, err := c.place.Ticket(); !errors.Is(err, ticket.ErrNone) {
					t.Errorf("container %s has a ticket: error %v", c.name, err)
				}
			}
		})
	}
}

// Two containers at a time are fetched, and no more.
func TestContainersAreFetchedConcurrently(t *testing.T) {
	r, s, meeting := newMeeting(t, "a", "b", "c", "d")
	if err := r.stage(t.Context(), s, s.containers); err != nil {
		t.Fatal(err)
	}
	for _, c := range s.containers {
		if _, err := c.place.Ticket(); err != nil || !c.place.HasData() {
			t.Errorf("container %s has its data: %v, and its ticket: error %v", c.name, c.place.HasData(), err)
		}
	}
	if meeting.most != maxFetches {
		t.Errorf("at most %d containers were read at a time, want %d", meeting.most, maxFetches)
	}
}

// newMeeting returns an agent, and a pod of which these containers are to be restored.
func newMeeting(t *testing.T, containers ...string) (*Reconciler, *state, *meeting) {
	t.Helper()
	dir, m := t.TempDir(), &meeting{data: map[string][]byte{}, both: make(chan struct{})}
	s := &state{pod: &corev1.Pod{}, request: "c", checkpoint: &v1alpha1.Checkpoint{}}
	s.checkpoint.Namespace, s.checkpoint.Spec.Target.PodName, s.checkpoint.Status.PodUID = "ns", "old", "uid-old"
	for _, name := range containers {
		place, err := ticket.At(dir, "uid-p", name)
		if err != nil {
			t.Fatal(err)
		}
		data, digest := newArchive(t, name, "{}")
		m.data[name] = data
		s.containers = append(s.containers, &container{name: name, target: true, place: place})
		s.checkpoint.Status.Containers = append(s.checkpoint.Status.Containers, v1alpha1.ContainerCheckpoint{Name: name, ContainerID: "old", Digest: digest})
	}
	return &Reconciler{options: &Options{Dir: dir}, archives: m, fetches: semaphore.NewWeighted(maxFetches), now: time.Now}, s, m
}

// A meeting has archives of which a first one waits until a second one is read, too.
type meeting struct {
	data map[string][]byte // by container

	mu        sync.Mutex
	now, most int
	both      chan struct{}
}

// Open implements [Archives].
func (m *meeting) Open(_ context.Context, _ *v1alpha1.Checkpoint, container string) (store.Object, error) {
	if m.data[container] == nil {
		return nil, store.ErrUnavailable
	}
	return metObject{bytes.NewReader(m.data[container]), m}, nil
}

// Key implements [Archives].
func (m *meeting) Key(context.Context, *v1alpha1.Checkpoint) (*archive.Key, error) { return nil, nil }

type metObject struct {
	*bytes.Reader
	meeting *meeting
}

func (o metObject) Close() error { return nil }

// NewReader begins with the first byte of the archive when it is unpacked.
func (o metObject) NewReader(offset, length int64) (io.ReadCloser, error) {
	m := o.meeting
	m.mu.Lock()
	m.now++
	if m.now > m.most {
		if m.most = m.now; m.most == 2 {
			close(m.both)
		}
	}
	m.mu.Unlock()
	<-m.both
	return closer{io.NewSectionReader(o, offset, length), m}, nil
}

type closer struct {
	io.Reader
	meeting *meeting
}

func (c closer) Close() error {
	c.meeting.mu.Lock()
	defer c.meeting.mu.Unlock()
	c.meeting.now--
	return nil
}

// The archive is read once: its progress is that of the whole.
func TestProgressIsThatOfTheArchive(t *testing.T) {
	data, _ := newArchive(t, "main", "{}")
	place, err := ticket.At(t.TempDir(), "uid-p", "main")
	if err != nil {
		t.Fatal(err)
	}
	at := now
	m := &meter{Object: metObject{Reader: bytes.NewReader(data)}, place: place, now: func() time.Time {
		at = at.Add(time.Second) // It is said once a second.
		return at
	}}
	if _, err := io.Copy(io.Discard, io.NewSectionReader(m, 0, m.Size())); err != nil {
		t.Fatal(err)
	}
	if want := "100 % of 0 MiB fetched and verified"; place.Progress() != want {
		t.Errorf("the progress is %q, want %q", place.Progress(), want)
	}
}
