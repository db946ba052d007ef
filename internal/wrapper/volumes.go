package wrapper

import (
	"context"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/ephemeral"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// putBackVolumes puts the files of the checkpoint back into the volumes of the container.
func putBackVolumes(ctx context.Context, place *ticket.Container, s *spec, volumes []ticket.Volume) error {
	for _, v := range volumes {
		if v.Name == ephemeral.SharedMemory {
			if v.Dir = s.sharedMemory(); v.Dir == "" {
				return incompatible("the checkpoint has files of /dev/shm, and the CRI runtime has mounted none there")
			}
		}
		if err := place.PutBack(v.Name, func(archive *os.File) error { return putBack(ctx, v, archive) }); err != nil {
			return err
		}
	}
	return nil
}

func putBack(ctx context.Context, v ticket.Volume, archive *os.File) error {
	fd, err := unix.Open(v.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", v.Dir, err)
	}
	t := &tree{root: os.NewFile(uintptr(fd), v.Dir), volume: true}
	defer t.root.Close()
	made, err := t.apply(ctx, archive)
	if err != nil || !v.Exclusive {
		return err
	}
	if err := t.removeExcept(nil, made); err != nil {
		return fmt.Errorf("removing what was not there at the checkpoint: %w", err)
	}
	return nil
}

// sharedMemory returns the directory of the node that is mounted at /dev/shm, "" if none is.
func (s *spec) sharedMemory() string {
	for _, m := range s.Mounts {
		if m.Destination == ephemeral.SharedMemory && (slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")) {
			return m.Source
		}
	}
	return ""
}
