package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// ErrNotRunning means that no cluster of that name is up.
var ErrNotRunning = errors.New("is not running")

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$`)

// CheckName tells whether a cluster can have that name: it becomes part of
// file, node and cgroup names.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("cluster name %q: use up to 30 lower-case letters, digits and inner dashes", name)
	}
	return nil
}

// Home is the folder below which everything lies: $DEVCLUSTER_HOME, else
// holdfast/devcluster in the user's cache folder.
func Home() (string, error) {
	if home := os.Getenv("DEVCLUSTER_HOME"); home != "" {
		return home, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder (set DEVCLUSTER_HOME): %w", err)
	}
	return filepath.Join(cache, "holdfast", "devcluster"), nil
}

// A Dir is the folder of one cluster. It exists while the cluster does.
type Dir string

// DirOf is the folder of the cluster of that name.
func DirOf(name string) (Dir, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	home, err := Home()
	return Dir(filepath.Join(home, "clusters", name)), err
}

// Name is the cluster's name.
func (d Dir) Name() string { return filepath.Base(string(d)) }

// Kubeconfig is the file that reaches the cluster as its administrator.
func (d Dir) Kubeconfig() string { return d.at("kubeconfig") }

// Node is the state folder of a node.
func (d Dir) Node(name string) string { return d.at("nodes", name) }

// Nodes are the state folders of all nodes.
func (d Dir) Nodes() []string {
	found, _ := filepath.Glob(d.at("nodes", "*")) // The pattern is a constant: it is well-formed.
	return found
}

// Bin is a folder with kubectl in it, to be put into a PATH.
func (d Dir) Bin() string { return d.at("bin") }

func (d Dir) at(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// ready is a file that is there once the whole cluster answers.
func (d Dir) ready() string { return d.at("ready") }

// lockFile lies beside the folder, so that it outlives it.
func (d Dir) lockFile() string { return string(d) + ".lock" }

// Running tells whether the cluster is up, or coming up.
func (d Dir) Running() bool {
	lock, err := d.lock()
	if err != nil {
		return errors.Is(err, unix.EWOULDBLOCK)
	}
	lock.Close()
	return false
}

// Ready returns ErrNotRunning, wrapped, unless the cluster is fully up.
func (d Dir) Ready() error {
	if _, err := os.Stat(d.ready()); err != nil || !d.Running() {
		return fmt.Errorf("cluster %s %w", d.Name(), ErrNotRunning)
	}
	return nil
}

// lock takes the cluster's lock, which every process of the cluster holds. It
// fails with EWOULDBLOCK while one of them lives.
func (d Dir) lock() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(d.lockFile()), 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of clusters: %w", err)
	}
	f, err := os.OpenFile(d.lockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of cluster %s: %w", d.Name(), err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("locking cluster %s: %w", d.Name(), err)
	}
	return f, nil
}
