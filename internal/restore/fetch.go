package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/mounts"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// maxFetches is how many containers of a node are fetched concurrently. Each takes some MiB of
// the agent's memory and two processors.
const maxFetches = 2

// A fetch brings the data of one container to the node.
type fetch struct {
	container *container
	record    *v1alpha1.ContainerCheckpoint
	object    store.Object
	reader    *archive.Reader
}

// prepare opens the archives of containers, and sees that the node has room for all of them.
// The caller closes the objects of what it returns, also together with an error.
func (r *Reconciler) prepare(ctx context.Context, s *state, containers []*container) (fetches []*fetch, err error) {
	var needed int64
	for _, c := range containers {
		dir := c.place.DataDir()
		if err := mounts.RemoveAll(dir); err != nil {
			return fetches, fmt.Errorf("removing former data: %w", err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fetches, fmt.Errorf("making a directory for the data: %w", err)
		}
		record := recordOf(s.checkpoint, c.name)
		needed += record.RawBytes
		if err := checkRoom(dir, needed); err != nil {
			return fetches, abandon(s, c, err)
		}
		object, err := r.archives.Open(ctx, s.checkpoint, c.name)
		if err != nil {
			return fetches, abandon(s, c, err)
		}
		f := &fetch{container: c, record: record, object: object}
		fetches = append(fetches, f)
		if err := r.openArchive(ctx, s.checkpoint, f); err != nil {
			return fetches, abandon(s, c, err)
		}
	}
	return fetches, nil
}

// abandon removes what is there of the data of a container, and says why.
func abandon(s *state, c *container, why error) error {
	return fmt.Errorf("fetching container %s of Checkpoint %s/%s: %w", c.name, s.checkpoint.Namespace, s.checkpoint.Name,
		errors.Join(why, c.removeData()))
}

// openArchive reads the header and the index of the archive.
func (r *Reconciler) openArchive(ctx context.Context, c *v1alpha1.Checkpoint, f *fetch) error {
	options := archive.OpenOptions{Identity: archive.Identity{
		Namespace: targetNamespace(c), Pod: c.Spec.Target.PodName, PodUID: string(c.Status.PodUID),
		Container: f.record.Name, ContainerID: f.record.ContainerID,
	}}
	key, err := r.archives.Key(ctx, c)
	if err != nil {
		return err
	}
	if key != nil {
		options.Secrets.Keys = []archive.Key{*key}
	}
	from := &meter{Object: f.object, place: f.container.place, now: r.now}
	f.reader, err = archive.Open(from, from.Size(), options)
	return err
}

// fetchAll fetches containers concurrently, and issues the ticket of each one whose data are
// there.
func (r *Reconciler) fetchAll(ctx context.Context, s *state, fetches []*fetch) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range fetches {
		group.Go(func() error {
			if err := r.fetches.Acquire(ctx, 1); err != nil {
				return abandon(s, f.container, err)
			}
			defer r.fetches.Release(1)
			spent, err := f.run(ctx, r.now)
			if err != nil {
				return abandon(s, f.container, err)
			}
			return f.container.place.Issue(r.ticketFor(s, f.container, spent))
		})
	}
	return group.Wait()
}

// run brings the data to the node and verifies them in one pass. They survive a power cut when
// it returns: a ticket to half of them would restore garbage.
func (f *fetch) run(ctx context.Context, now func() time.Time) (ticket.Fetched, error) {
	start, dir := now(), f.container.place.DataDir()
	found, err := f.reader.Unpack(ctx, dir)
	if err != nil {
		return ticket.Fetched{}, err
	}
	if found.Digest != f.record.Digest {
		return ticket.Fetched{}, fmt.Errorf("%w: its digest is %s, and the Checkpoint has %s: it was replaced", archive.ErrDamaged, found.Digest, f.record.Digest)
	}
	unpacked := now()
	if err := syncAll(dir); err != nil {
		return ticket.Fetched{}, err
	}
	return ticket.Fetched{Seconds: unpacked.Sub(start).Seconds(), SyncSeconds: now().Sub(unpacked).Seconds(), At: now()}, nil
}
