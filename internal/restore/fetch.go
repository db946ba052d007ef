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
	"github.com/holdfast-io/holdfast/internal/kube"
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
	// prepared are the files in RAM, nil if there is none; then onDisk is why.
	prepared map[string]int64
	onDisk   string
	// fetched is what it took.
	fetched ticket.Fetched
}

// fetch brings the data of containers to the node. It returns what it has begun, also together
// with an error.
func (r *Reconciler) fetch(ctx context.Context, s *state, containers []*container) ([]*fetch, error) {
	fetches, err := r.prepare(ctx, s, containers)
	defer func() {
		for _, f := range fetches {
			f.object.Close()
		}
	}()
	if err != nil {
		return fetches, err
	}
	return fetches, r.fetchAll(ctx, s, fetches)
}

// prepare opens the archives of containers, and sees that the node has room for all of them.
// The caller closes the objects of what it returns, also together with an error.
func (r *Reconciler) prepare(ctx context.Context, s *state, containers []*container) (fetches []*fetch, err error) {
	var needed int64
	for _, c := range containers {
		if err := r.clear(ctx, s, c); err != nil {
			return fetches, err
		}
		object, err := r.archives.Open(ctx, s.source(), c.name)
		if err != nil {
			return fetches, r.abandon(s, c, err)
		}
		f := &fetch{container: c, record: recordOf(s.checkpoint, c.name), object: object}
		fetches = append(fetches, f)
		err = r.openArchive(ctx, s.checkpoint, f)
		if err == nil {
			err = r.hold(ctx, s, f)
		}
		if err == nil {
			needed += f.sizeOnDisk()
			err = checkRoom(c.place.DataDir(), needed)
		}
		if err != nil {
			return fetches, r.abandon(s, c, err)
		}
	}
	return fetches, nil
}

// clear makes an empty directory for the data of a container. There must be no ticket for data
// that are not there yet, and no container that was restored with the former ones.
func (r *Reconciler) clear(ctx context.Context, s *state, c *container) error {
	if c.outcome != nil && c.outcome.Error == "" {
		if err := r.endUnreported(ctx, s, c); err != nil {
			return err
		}
	}
	if c.issued != nil {
		err := c.place.Withdraw()
		if errors.Is(err, ticket.ErrNone) {
			return kube.Conflict("the ticket of container %s was claimed meanwhile", c.name)
		}
		if err != nil {
			return fmt.Errorf("withdrawing a ticket whose data are gone: %w", err)
		}
	}
	if err := r.removeData(c); err != nil {
		return err
	}
	if err := os.MkdirAll(c.place.DataDir(), 0o700); err != nil {
		return fmt.Errorf("making a directory for the data: %w", err)
	}
	return nil
}

// abandon removes what is there of the data of a container, and says why.
func (r *Reconciler) abandon(s *state, c *container, why error) error {
	return fmt.Errorf("fetching container %s of Checkpoint %s/%s: %w", c.name, s.checkpoint.Namespace, s.checkpoint.Name,
		errors.Join(why, r.removeData(c)))
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

// fetchAll fetches containers concurrently.
func (r *Reconciler) fetchAll(ctx context.Context, s *state, fetches []*fetch) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, f := range fetches {
		group.Go(func() error {
			if err := r.fetches.Acquire(ctx, 1); err != nil {
				return r.abandon(s, f.container, err)
			}
			defer r.fetches.Release(1)
			if err := f.run(ctx, r.now); err != nil {
				return r.abandon(s, f.container, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// run brings the data to the node and verifies them in one pass. They survive a power cut when
// it returns: a ticket to half of them would restore garbage.
func (f *fetch) run(ctx context.Context, now func() time.Time) error {
	start, dir := now(), f.container.place.DataDir()
	found, err := f.reader.Unpack(ctx, dir, f.prepared)
	if err != nil {
		return err
	}
	if found.Digest != f.record.Digest {
		return fmt.Errorf("%w: its digest is %s, and the Checkpoint has %s: it was replaced", archive.ErrDamaged, found.Digest, f.record.Digest)
	}
	unpacked := now()
	if err := errors.Join(keepVolumes(f.container, f.record), syncAll(dir)); err != nil {
		return err
	}
	f.fetched = ticket.Fetched{Seconds: unpacked.Sub(start).Seconds(), SyncSeconds: now().Sub(unpacked).Seconds(), At: now(), OnDisk: f.onDisk}
	return nil
}
