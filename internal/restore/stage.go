package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/mounts"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// Archives opens the stored data of Checkpoints.
type Archives interface {
	// Open opens the archive of a container. The context limits all that is read.
	Open(ctx context.Context, c *v1alpha1.Checkpoint, container string) (store.Object, error)
	// Key returns the key with which it is encrypted; nil for none.
	Key(ctx context.Context, c *v1alpha1.Checkpoint) (*archive.Key, error)
}

// stage fetches the data of all containers of the Checkpoint that lack a ticket, and issues
// their tickets. Those of other containers come first: they need not wait.
func (r *Reconciler) stage(ctx context.Context, s *state) error {
	for _, c := range s.containers {
		if !c.target && c.issued == nil {
			if err := c.place.Issue(ticket.Ticket{Request: s.request, Decision: ticket.StartFresh}); err != nil {
				return err
			}
		}
	}
	for _, c := range s.targets() {
		if c.issued != nil || c.claimed != nil {
			continue
		}
		if err := r.stageContainer(ctx, s, c); err != nil {
			return fmt.Errorf("fetching container %s of Checkpoint %s/%s: %w", c.name, s.checkpoint.Namespace, s.checkpoint.Name, err)
		}
		if err := c.place.Issue(r.ticketFor(s, c)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) ticketFor(s *state, c *container) ticket.Ticket {
	return ticket.Ticket{
		Request: s.request, Decision: ticket.Restore, Digest: recordOf(s.checkpoint, c.name).Digest,
		CloseTCP:   s.checkpoint.Spec.EstablishedTCP == v1alpha1.CloseTCP,
		Compatible: s.policy.Match == v1alpha1.MatchCompatible,
		Expires:    r.now().Add(expiry),
	}
}

func recordOf(c *v1alpha1.Checkpoint, container string) *v1alpha1.ContainerCheckpoint {
	for i := range c.Status.Containers {
		if at := &c.Status.Containers[i]; at.Name == container {
			return at
		}
	}
	return &v1alpha1.ContainerCheckpoint{}
}

// stageContainer replaces the data of a container by those of the Checkpoint. They survive a
// power cut when it returns: a ticket to half of them would restore garbage.
func (r *Reconciler) stageContainer(ctx context.Context, s *state, c *container) error {
	dir := c.place.DataDir()
	if err := mounts.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing former data: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a directory for the data: %w", err)
	}
	record := recordOf(s.checkpoint, c.name)
	if err := checkRoom(dir, record.RawBytes); err != nil {
		return err
	}
	object, err := r.archives.Open(ctx, s.checkpoint, c.name)
	if err != nil {
		return err
	}
	defer object.Close()
	if err := r.extract(ctx, s.checkpoint, record, &meter{Object: object, place: c.place, now: r.now}, dir); err != nil {
		return err
	}
	return syncAll(dir)
}

// extract verifies the whole archive and writes its files. What is written is what was
// verified: both follow the index that is read once.
func (r *Reconciler) extract(ctx context.Context, c *v1alpha1.Checkpoint, record *v1alpha1.ContainerCheckpoint, from store.Object, dir string) error {
	options := archive.OpenOptions{Identity: archive.Identity{
		Namespace: targetNamespace(c), Pod: c.Spec.Target.PodName, PodUID: string(c.Status.PodUID),
		Container: record.Name, ContainerID: record.ContainerID,
	}}
	key, err := r.archives.Key(ctx, c)
	if err != nil {
		return err
	}
	if key != nil {
		options.Secrets.Keys = []archive.Key{*key}
	}
	reader, err := archive.Open(from, from.Size(), options)
	if err != nil {
		return err
	}
	found, err := reader.Verify(ctx)
	if err != nil {
		return err
	}
	if found.Digest != record.Digest {
		return fmt.Errorf("%w: its digest is %s, and the Checkpoint has %s: it was replaced", archive.ErrDamaged, found.Digest, record.Digest)
	}
	return reader.Extract(ctx, dir)
}

// spareDisk is room that the data leave on the node, in bytes.
const spareDisk = 256 << 20

// errNoRoom means that the node has no room for the data.
var errNoRoom = errors.New("the node has too little free disk space")

func checkRoom(dir string, needed int64) error {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return fmt.Errorf("reading the free disk space of the node: %w", err)
	}
	if free := int64(stat.Bavail) * stat.Bsize; free < needed+spareDisk {
		return fmt.Errorf("%w: %d MiB are free in %s, and %d MiB are needed", errNoRoom, free>>20, dir, (needed+spareDisk)>>20)
	}
	return nil
}

// syncAll writes the file system of a directory to disk.
func syncAll(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening the directory of the data: %w", err)
	}
	defer file.Close()
	if err := unix.Syncfs(int(file.Fd())); err != nil {
		return fmt.Errorf("writing the data to disk: %w", err)
	}
	return nil
}

// A meter is an object that says how much was read of it.
type meter struct {
	store.Object
	place *ticket.Container
	now   func() time.Time
	read  atomic.Int64
	said  atomic.Int64 // when, in seconds
}

func (m *meter) ReadAt(p []byte, offset int64) (int, error) {
	n, err := m.Object.ReadAt(p, offset)
	m.add(n)
	return n, err
}

// NewReader implements [store.Object].
func (m *meter) NewReader(offset, length int64) (io.ReadCloser, error) {
	reader, err := m.Object.NewReader(offset, length)
	if err != nil {
		return nil, err
	}
	return &meteredReader{reader, m}, nil
}

// add says at most once a second how far it is. The archive is read twice.
func (m *meter) add(n int) {
	read, second := m.read.Add(int64(n)), m.now().Unix()
	if said := m.said.Load(); second == said || !m.said.CompareAndSwap(said, second) {
		return
	}
	percent := min(100, 100*read/max(1, 2*m.Size()))
	// It is only for people: the restore goes on without it.
	_ = m.place.SetProgress(fmt.Sprintf("%d %% of %d MiB fetched and verified", percent, m.Size()>>20))
}

type meteredReader struct {
	io.ReadCloser
	meter *meter
}

func (r *meteredReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.meter.add(n)
	return n, err
}

// removeData removes the memory of a checkpoint from the node.
func (c *container) removeData() error {
	if err := mounts.RemoveAll(c.place.DataDir()); err != nil {
		return fmt.Errorf("removing the data of container %s: %w", c.name, err)
	}
	return nil
}

// hasData reports whether the data of a ticket are there.
func (c *container) hasData() bool {
	_, err := os.Stat(filepath.Join(c.place.DataDir(), "spec.dump"))
	return err == nil
}
