package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// traces are what a running cluster has on the machine, taken down while it
// runs so that it can be looked for when it has ended.
type traces struct {
	folder     string
	name       string
	namespaces map[string]bool // of its nodes
	links      []net.Interface // of the machine, into the cluster's network
}

// kinds are the namespaces by which the processes of a node are known.
var kinds = []string{"mnt", "pid", "net"}

func (c *cluster) trace(t *testing.T) traces {
	t.Helper()
	found := traces{folder: c.folder(t, c.name), name: c.name, namespaces: map[string]bool{}, links: linksTo(t, c.server(t))}
	for _, p := range processes(t) {
		for _, kind := range kinds {
			id, err := os.Readlink(filepath.Join("/proc", p.pid, "ns", kind))
			if err == nil && c.owns(p) {
				found.namespaces[id] = true
			}
		}
	}
	for _, kind := range kinds { // The control plane's are the machine's.
		id, err := os.Readlink("/proc/self/ns/" + kind)
		must(t, err)
		delete(found.namespaces, id)
	}
	return found
}

// linksTo are the interfaces that have the address of the API server, but for
// loopback, which all clusters without nodes share.
func linksTo(t *testing.T, server string) []net.Interface {
	t.Helper()
	all, err := net.Interfaces()
	must(t, err)
	var found []net.Interface
	for _, link := range all {
		addresses, err := link.Addrs()
		if err != nil {
			continue // It belongs to a cluster that has just ended.
		}
		for _, a := range addresses {
			if strings.HasPrefix(a.String(), server+"/") && link.Flags&net.FlagLoopback == 0 {
				found = append(found, link)
			}
		}
	}
	return found
}

// server is the host of the cluster's API server.
func (c *cluster) server(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(c.kubeconfig)
	must(t, err)
	_, after, _ := strings.Cut(string(text), "server: https://")
	host, _, _ := strings.Cut(after, ":")
	return host
}

// processes returns an error that names a process of the cluster that lives.
func (s traces) processes(t *testing.T) error {
	t.Helper()
	var errs []error
	for _, p := range processes(t) {
		named := strings.Contains(p.args, s.folder+"/") || strings.Contains(p.args, s.name+"-n")
		for _, kind := range kinds {
			id, err := os.Readlink(filepath.Join("/proc", p.pid, "ns", kind))
			named = named || err == nil && s.namespaces[id]
		}
		if named {
			errs = append(errs, fmt.Errorf("process %s lives: %s", p.pid, p.args))
		}
	}
	return errors.Join(errs...)
}

// rest returns an error that names all else that is left.
func (s traces) rest(t *testing.T) error {
	t.Helper()
	var errs []error
	for _, file := range []string{s.folder, s.folder + ".lock"} {
		if _, err := os.Stat(file); err == nil {
			errs = append(errs, fmt.Errorf("%s is there", file))
		}
	}
	for _, link := range s.links {
		if now, err := net.InterfaceByIndex(link.Index); err == nil {
			errs = append(errs, fmt.Errorf("interface %s is there", now.Name))
		}
	}
	errs = append(errs, s.attached(t), s.groups(t))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if strings.Contains(string(mounts), s.folder+"/") {
		errs = append(errs, fmt.Errorf("mounted:\n%s", mounts))
	}
	return errors.Join(errs...)
}

// groups returns an error that names the cluster's control groups.
func (s traces) groups(t *testing.T) error {
	t.Helper()
	var errs []error
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} { // Versions 2 and 1.
		left, err := filepath.Glob(filepath.Join(root, "devcluster-"+s.name+"-*"))
		must(t, err)
		for _, group := range left {
			errs = append(errs, fmt.Errorf("control group %s is there", group))
		}
	}
	return errors.Join(errs...)
}

// attached returns an error that names the loop devices over files that have
// the cluster's name in theirs.
func (s traces) attached(t *testing.T) error {
	t.Helper()
	devices, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	must(t, err)
	var errs []error
	for _, device := range devices {
		if file, err := os.ReadFile(device); err == nil && strings.Contains(string(file), s.name) {
			errs = append(errs, fmt.Errorf("%s is attached to %s", strings.Split(device, "/")[3], file))
		}
	}
	return errors.Join(errs...)
}

type process struct{ pid, args string }

// owns tells whether a process is one of the cluster's that carries its name.
func (c *cluster) owns(p process) bool {
	return strings.Contains(p.args, "/"+c.name+"/") || strings.Contains(p.args, c.name+"-n")
}

// find is the number of the cluster's component of that name.
func (c *cluster) find(t *testing.T, component string) int {
	t.Helper()
	for _, p := range processes(t) {
		if strings.HasPrefix(p.args, component+" ") && c.owns(p) {
			pid, err := strconv.Atoi(p.pid)
			must(t, err)
			return pid
		}
	}
	t.Fatalf("cluster %s has no process %s", c.name, component)
	return 0
}

// processes are all of this machine that have not ended.
func processes(t *testing.T) []process {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	var all []process
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && len(text) > 0 {
			all = append(all, process{filepath.Base(filepath.Dir(file)), strings.ReplaceAll(string(text), "\x00", " ")})
		}
	}
	return all
}
