package restore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
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

// stage fetches the data of containers, and issues their tickets. Those of containers that the
// Checkpoint does not have come first: they need not wait.
func (r *Reconciler) stage(ctx context.Context, s *state, missing []*container) error {
	for _, c := range s.containers {
		if !c.target && c.issued == nil {
			if err := c.place.Issue(ticket.Ticket{Request: s.request, Decision: ticket.StartFresh}); err != nil {
				return err
			}
		}
	}
	if err := s.prepareVolumes(missing); err != nil {
		return err
	}
	fetches, err := r.fetch(ctx, s, missing)
	if err != nil {
		for _, f := range fetches { // What they have taken of the node is not for later.
			err = errors.Join(err, r.removeData(f.container))
		}
		return err
	}
	// Not before the data of all are there: a volume may be in the archive of another container.
	for _, f := range fetches {
		if err := f.container.place.Issue(r.ticketFor(s, f.container, f.fetched)); err != nil {
			return err
		}
	}
	return nil
}

// ticketFor returns a ticket to restore a container from data that are on the node.
func (r *Reconciler) ticketFor(s *state, c *container, fetched ticket.Fetched) ticket.Ticket {
	return ticket.Ticket{
		Request: s.request, Decision: ticket.Restore, Digest: recordOf(s.checkpoint, c.name).Digest,
		CloseTCP:   s.checkpoint.Spec.EstablishedTCP == v1alpha1.CloseTCP,
		Compatible: s.policy.Match == v1alpha1.MatchCompatible,
		Volumes:    r.volumesOf(s, c),
		SharesIPC:  s.sharesIPC(),
		Expires:    r.now().Add(expiry),
		Fetched:    fetched,
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

// spareDisk is room that the data leave on the node, in bytes.
const spareDisk = 256 << 20

// errNoRoom means that the node has no room for the data.
var errNoRoom = errors.New("the node has too little free disk space")

// checkRoom checks that a directory has room for so many bytes.
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
