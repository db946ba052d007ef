package cluster

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cgroupRoot is where Linux machines have their control groups.
const cgroupRoot = "/sys/fs/cgroup"

// cgroup is the control group, in every hierarchy, under which the pods of all
// nodes are put. Clusters of the same name below different homes differ in it.
func (d Dir) cgroup() string {
	home := sha256.Sum256([]byte(filepath.Dir(string(d))))
	return fmt.Sprintf("/devcluster-%s-%x", d.Name(), home[:4])
}

// makeCgroups makes a group in every hierarchy below root: one that is root
// itself (version 2), or a folder of it for each (version 1).
func makeCgroups(root, group string) error {
	if _, err := os.Stat(filepath.Join(root, controllersFile)); err == nil {
		return makeUnified(root, group)
	}
	hierarchies, err := filepath.Glob(filepath.Join(root, "*", "cgroup.procs"))
	if err != nil || len(hierarchies) == 0 {
		return errors.Join(fmt.Errorf("%s has no control groups: mount them there", root), err)
	}
	for _, h := range hierarchies {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(h), group), 0o755); err != nil {
			return fmt.Errorf("making control group %s: %w", group, err)
		}
	}
	return nil
}

// controllersFile lists what a group of version 2 can hand on to its children,
// and tells the versions apart.
const controllersFile = "cgroup.controllers"

// makeUnified makes a group of version 2 with the controllers that the kubelet
// asks for: each ancestor must hand them on.
func makeUnified(root, group string) error {
	wanted := []string{"cpu", "cpuset", "memory", "hugetlb", "pids"}
	at := root
	for name := range strings.SplitSeq(strings.Trim(group, "/"), "/") {
		text, err := os.ReadFile(filepath.Join(at, controllersFile))
		if err != nil {
			return fmt.Errorf("reading the controllers of %s: %w", at, err)
		}
		for _, controller := range strings.Fields(string(text)) {
			if !slices.Contains(wanted, controller) {
				continue
			}
			if err := os.WriteFile(filepath.Join(at, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
				return fmt.Errorf("handing on the %s controller of %s (in a container it must be free of processes): %w", controller, at, err)
			}
		}
		at = filepath.Join(at, name)
		if err := os.Mkdir(at, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making control group %s: %w", at, err)
		}
	}
	return nil
}

// sweepCgroups removes the cluster's groups below root.
func sweepCgroups(dir Dir, root string) error {
	groups, err := filepath.Glob(root + "/*" + dir.cgroup())
	if err != nil {
		return fmt.Errorf("listing control groups: %w", err)
	}
	for _, group := range append(groups, root+dir.cgroup()) {
		if err := insist(func() error { return removeTree(group) }); err != nil {
			return fmt.Errorf("removing control group %s: %w", group, err)
		}
	}
	return nil
}

// removeTree removes folders from the leaves up: the files in a control group
// cannot be removed and go with it.
func removeTree(group string) error {
	var folders []string
	err := filepath.WalkDir(group, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, folder := range slices.Backward(folders) {
		if err := os.Remove(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
