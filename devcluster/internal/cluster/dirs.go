package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// HomeVariable names the environment's word about Home.
const HomeVariable = "DEVCLUSTER_HOME"

// Home is the folder below which everything lies: $DEVCLUSTER_HOME, else
// holdfast/devcluster in the user's cache folder.
func Home() (string, error) {
	if home := os.Getenv(HomeVariable); home != "" {
		return filepath.Abs(home) // Components run in another folder than this process.
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache folder (or set %s): %w", HomeVariable, err)
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

// Shared is the folder that all nodes see as node.SharedAt.
func (d Dir) Shared() string { return d.at("shared") }

// Nodes are the state folders of all nodes.
func (d Dir) Nodes() []string {
	found, _ := filepath.Glob(d.at("nodes", "*")) // The pattern is a constant: it is well-formed.
	return found
}

// Tree is a link to the Debian tree under the nodes. It keeps "load" right when
// the program has been rebuilt, with another tree, since the cluster started.
func (d Dir) Tree() string { return d.at("tree") }

// Bin is a folder with kubectl in it, to be put into a PATH.
func (d Dir) Bin() string { return d.at("bin") }

func (d Dir) at(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// ready is a file that is there once the whole cluster answers.
func (d Dir) ready() string { return d.at("ready") }

// Ready returns ErrNotRunning, wrapped, unless the cluster is fully up.
func (d Dir) Ready() error {
	if _, err := os.Stat(d.ready()); err != nil || !d.running() {
		return fmt.Errorf("cluster %s %w; start it by: devcluster up --name %s", d.Name(), ErrNotRunning, d.Name())
	}
	return nil
}
