package runc

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A rootfs is the writable layer of a container: the upper directory of its overlay.
type rootfs struct {
	upper string
}

// findRootfs finds the writable layer of the container that a process is in.
func findRootfs(pid int) (rootfs, error) {
	mounts, err := mountsOf(pid)
	if err != nil {
		return rootfs{}, err
	}
	for _, mount := range mounts {
		if mount.Mountpoint != "/" {
			continue
		}
		if mount.FSType != "overlay" {
			return rootfs{}, runtime.ErrorfForEngine(
				"the container's root file system is %s; this engine can save the changes to an overlay only", mount.FSType)
		}
		for option := range strings.SplitSeq(mount.VFSOptions, ",") {
			if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
				return rootfs{upper: upper}, nil
			}
		}
		return rootfs{}, nil // read-only: it has no changes
	}
	return rootfs{}, runtime.Errorf(runtime.ContainerNotRunning, "process %d has no root file system", pid)
}

func mountsOf(pid int) ([]*mountinfo.Info, error) {
	file, err := os.Open(procFile(pid, "mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("opening the mounts of process %d: %w", pid, err)
	}
	defer file.Close()
	mounts, err := mountinfo.GetMountsFromReader(file, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the mounts of process %d: %w", pid, err)
	}
	return mounts, nil
}
