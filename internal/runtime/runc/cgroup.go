package runc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// joinFirstProcess moves this process into the control groups of the node's first
// process, out of those of the agent's container: whoever kills that container kills all
// that is in them.
func joinFirstProcess() error {
	groups, err := os.ReadFile("/proc/1/cgroup")
	if err != nil {
		return fmt.Errorf("reading the control groups of the node's first process: %w", err)
	}
	mounts, err := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	if err != nil {
		return fmt.Errorf("reading the mounts of the node: %w", err)
	}
	joined := false
	for line := range strings.Lines(string(groups)) {
		dir := cgroupDir(strings.TrimSpace(line), mounts)
		if dir == "" {
			continue // a hierarchy without a mount: no container is managed with it
		}
		err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
		if errors.Is(err, unix.EOPNOTSUPP) {
			continue // a threaded group of a hybrid hierarchy, which has no controllers
		}
		if err != nil {
			return fmt.Errorf("leaving the control group of the agent: %w", err)
		}
		joined = true
	}
	if !joined {
		return errors.New("leaving the control group of the agent: the node has no cgroup file system mounted")
	}
	return nil
}

// cgroupDir returns the directory of a line of /proc/PID/cgroup, "" if it is not mounted.
func cgroupDir(line string, mounts []*mountinfo.Info) string {
	fields := strings.SplitN(line, ":", 3)
	if len(fields) != 3 {
		return ""
	}
	controllers, path := fields[1], fields[2]
	for _, mount := range mounts {
		v2 := mount.FSType == "cgroup2"
		if v2 != (controllers == "") {
			continue
		}
		first, _, _ := strings.Cut(controllers, ",")
		if !v2 && !slices.Contains(strings.Split(mount.VFSOptions, ","), first) {
			continue
		}
		if relative, ok := strings.CutPrefix(path, strings.TrimSuffix(mount.Root, "/")); ok {
			return filepath.Join(mount.Mountpoint, relative)
		}
	}
	return ""
}
