package freezer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNotFound means that there is no such control group: the container has ended.
var ErrNotFound = errors.New("the control group does not exist")

// Paths are where the node's file systems are mounted. In a pod they may have a prefix.
type Paths struct {
	Proc   string // "" for /proc
	Cgroup string // "" for /sys/fs/cgroup
}

// Mode returns which version's freezer the node uses: "v1" or "v2".
func (p Paths) Mode() (string, error) {
	_, mode, err := p.hierarchy()
	return mode, err
}

// hierarchy returns the mount point of the hierarchy that has the freezer. On a node with
// both versions (hybrid), the freezer is in version 1 if that has one.
func (p Paths) hierarchy() (dir, mode string, err error) {
	root := p.Cgroup
	if root == "" {
		root = "/sys/fs/cgroup"
	}
	unified := filepath.Join(root, "unified")
	switch {
	case exists(filepath.Join(root, "cgroup.controllers")):
		return root, "v2", nil
	case exists(filepath.Join(root, "freezer")):
		return filepath.Join(root, "freezer"), "v1", nil
	case exists(filepath.Join(unified, "cgroup.controllers")):
		return unified, "v2", nil
	}
	return "", "", fmt.Errorf("%s has no freezer: neither control groups of version 2 nor the freezer "+
		"of version 1 are mounted there", root)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// OfProcess returns the control group of a process. It is [ErrNotFound] if the process has
// ended.
func (p Paths) OfProcess(pid int) (*Cgroup, error) {
	dir, mode, err := p.hierarchy()
	if err != nil {
		return nil, err
	}
	proc := p.Proc
	if proc == "" {
		proc = "/proc"
	}
	lines, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("finding the control group of process %d: %w", pid, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the control group of process %d: %w", pid, err)
	}
	path, err := cgroupPath(string(lines), mode)
	if err != nil {
		return nil, fmt.Errorf("finding the control group of process %d: %w", pid, err)
	}
	return open(filepath.Join(dir, path), mode)
}

// cgroupPath returns the path of a process in the hierarchy that has the freezer, from its
// /proc/PID/cgroup; see cgroups(7).
func cgroupPath(lines, mode string) (string, error) {
	for line := range strings.Lines(lines) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) != 3 || !hasFreezer(fields[0], fields[1], mode) {
			continue
		}
		path := strings.TrimSuffix(fields[2], " (deleted)")
		if path == "/.." || strings.HasPrefix(path, "/../") {
			return "", fmt.Errorf("%s is outside of the control group namespace of this process, "+
				"which must be the node's", path)
		}
		return path, nil
	}
	return "", errors.New("it is in no control group with a freezer")
}

func hasFreezer(id, controllers, mode string) bool {
	if mode == "v2" {
		return id == "0" && controllers == ""
	}
	for controller := range strings.SplitSeq(controllers, ",") {
		if controller == "freezer" {
			return true
		}
	}
	return false
}

// OfContainer returns the control group of a container by its ID, as containerd and CRI-O
// name it with either cgroup driver: ID, cri-containerd-ID.scope, crio-ID, crio-ID.scope.
// It is [ErrNotFound] if the container has ended.
func (p Paths) OfContainer(id string) (*Cgroup, error) {
	if len(id) < 12 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("finding the control group of a container: %q is not an ID of a container", id)
	}
	dir, mode, err := p.hierarchy()
	if err != nil {
		return nil, err
	}
	found := ""
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile, as control groups are
		case err != nil:
			return err
		case entry.IsDir() && isOfContainer(entry.Name(), id):
			found = path
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("finding the control group of container %s: %w", id, err)
	}
	if found == "" {
		return nil, fmt.Errorf("finding the control group of container %s: %w", id, ErrNotFound)
	}
	return open(found, mode)
}

func isOfContainer(name, id string) bool {
	prefix, ok := strings.CutSuffix(strings.TrimSuffix(name, ".scope"), id)
	// crio-conmon-ID has the container's monitor.
	return ok && (prefix == "" || strings.HasSuffix(prefix, "-") && !strings.Contains(prefix, "conmon"))
}
