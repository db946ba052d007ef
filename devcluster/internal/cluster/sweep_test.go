package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSweepDead(t *testing.T) {
	dead := newDir(t, "dead")
	clusters := filepath.Dir(string(dead))
	alive, half, gone := Dir(filepath.Join(clusters, "alive")), Dir(filepath.Join(clusters, "half")), Dir(filepath.Join(clusters, "gone"))
	for _, d := range []Dir{dead, alive} {
		write(t, d.at("logs", "etcd.log"), "")
		write(t, d.lockFile(), "1")
	}
	write(t, half.at("pki", "ca.crt"), "") // Its removal was broken off.
	write(t, gone.lockFile(), "1")         // Somebody has removed its folder.
	write(t, filepath.Join(clusters, "No Cluster", "file"), "")
	lock, err := alive.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := SweepDead(); err != nil {
		t.Fatal(err)
	}
	want := []string{"No Cluster", "No Cluster/file", "alive", "alive/logs", "alive/logs/etcd.log", "alive.lock"}
	if diff := cmp.Diff(want, under(t, clusters)); diff != "" {
		t.Error(diff)
	}
}

func TestOurs(t *testing.T) {
	const disk, loop1, loop2, loop3 = 10, 71, 72, 73
	at := func(number, device, inode uint64) loop { return loop{number: number, file: fileID{device, inode}} }
	files := map[fileID]bool{{disk, 5}: true}
	tests := map[string]struct {
		loops []loop
		want  []uint64
	}{
		"a device over a file of the cluster is ours":            {[]loop{at(loop1, disk, 5)}, []uint64{loop1}},
		"a device over another file is not":                      {[]loop{at(loop1, disk, 6)}, nil},
		"the same number on another disk is another file":        {[]loop{at(loop1, disk+1, 5)}, nil},
		"a device over a file in a device of ours is ours":       {[]loop{at(loop1, disk, 5), at(loop2, loop1, 5)}, []uint64{loop1, loop2}},
		"however deep, and in whatever order they are listed":    {[]loop{at(loop3, loop2, 9), at(loop2, loop1, 8), at(loop1, disk, 5)}, []uint64{loop1, loop2, loop3}},
		"a device over a file in a device of others is not ours": {[]loop{at(loop1, disk, 6), at(loop2, loop1, 5)}, nil},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			var got []uint64
			for _, l := range ours(tt.loops, files) {
				got = append(got, l.number)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFilesOf(t *testing.T) {
	dir := newDir(t, "dev")
	inside := filepath.Join(dir.Node("dev-n1"), "var", "lib", "driver", "disk.img")
	write(t, inside, "")
	write(t, filepath.Join(dir.Node("dev-n2"), "var", "disk.img"), "")
	write(t, filepath.Join(dir.Shared(), "volumes", "disk.img"), "")
	write(t, filepath.Join(dir.Node("dev-n2"), "files", "ca.crt"), "")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir.Node("dev-n2"), "var", "link")); err != nil {
		t.Fatal(err)
	}
	files, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("%d files, want the two below the nodes' /var and the one that they share", len(files))
	}
}

func TestControlGroups(t *testing.T) {
	dir, other := Dir("/a/clusters/dev"), Dir("/b/clusters/dev")
	if dir.cgroup() == other.cgroup() {
		t.Errorf("clusters of one name in two homes share the control group %s", dir.cgroup())
	}
	tests := map[string]struct {
		have []string
		made []string // where the cluster's groups shall be
	}{
		"version 1 has a hierarchy per controller": {
			have: []string{"cpu/cgroup.procs", "memory/cgroup.procs"},
			made: []string{"cpu", "memory"},
		},
		"version 1 may have folders that are none": {
			have: []string{"cpu/cgroup.procs", "other/file"},
			made: []string{"cpu"},
		},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			root := t.TempDir()
			for _, file := range tt.have {
				write(t, filepath.Join(root, file), "")
			}
			before := under(t, root)
			if err := makeCgroups(root, dir.cgroup()+"/dev-n1"); err != nil {
				t.Fatal(err)
			}
			for _, made := range tt.made {
				deep := filepath.Join(root, made, dir.cgroup(), "dev-n1", "kubepods", "besteffort")
				if err := os.MkdirAll(deep, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := len(under(t, root)), len(before)+4*len(tt.made); got != want {
				t.Errorf("%d folders, want %d: %q", got, want, under(t, root))
			}
			if err := sweepCgroups(dir, root); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, under(t, root)); diff != "" {
				t.Errorf("after the sweep: %s", diff)
			}
		})
	}
	t.Run("a machine without any says so", func(t *testing.T) {
		if err := makeCgroups(t.TempDir(), dir.cgroup()); err == nil || !strings.Contains(err.Error(), "has no control groups") {
			t.Errorf("got %v", err)
		}
	})
}

// In version 2 a group has the controllers that its parent hands on.
func TestControllersAreHandedOn(t *testing.T) {
	root := t.TempDir()
	group := filepath.Join(root, "cluster")
	write(t, filepath.Join(root, controllersFile), "cpuset cpu io memory hugetlb pids rdma")
	write(t, filepath.Join(group, controllersFile), "cpu memory") // The kernel would make this file.
	if err := makeCgroups(root, "/cluster/node"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(group, "node")); err != nil {
		t.Error(err)
	}
	for at, want := range map[string]string{root: "+pids", group: "+memory"} { // A plain file keeps the last word only.
		got, err := os.ReadFile(filepath.Join(at, "cgroup.subtree_control"))
		if err != nil || string(got) != want {
			t.Errorf("%s hands on %q last, want %q (%v)", at, got, want, err)
		}
	}
}

func TestKeepLogs(t *testing.T) {
	dir := newDir(t, "dev")
	kept, err := dir.keepLogs()
	if kept != "" || err != nil {
		t.Errorf("without logs: %q, %v, want nothing", kept, err)
	}
	write(t, filepath.Join(dir.failed(), "logs-of-an-earlier-one"), "")
	write(t, dir.at("logs", "etcd.log"), "")
	write(t, filepath.Join(dir.Node("dev-n1"), "var", "log", "kubelet.log"), "")
	write(t, filepath.Join(dir.Node("dev-n2"), "files", "ca.crt"), "") // It did not come far.
	if kept, err = dir.keepLogs(); err != nil {
		t.Fatal(err)
	}
	want := []string{"dev-n1", "dev-n1/kubelet.log", "etcd.log"}
	if diff := cmp.Diff(want, under(t, kept)); diff != "" {
		t.Error(diff)
	}
	if err := dir.ForgetLogs(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); !os.IsNotExist(err) {
		t.Errorf("after ForgetLogs: %v, want it to be gone", err)
	}
}

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	tests := map[string]struct{ text, want string }{
		"of nothing is nothing":          {"", ""},
		"of a short log is all":          {"a\nb\n", "a\nb"},
		"of a long log is the end of it": {"a\nb\nc\nd\n", "b\nc\nd"},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			write(t, file, tt.text)
			if got := tail(file); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("of no file says so", func(t *testing.T) {
		if got := tail(file + "x"); !strings.Contains(got, "no such file") {
			t.Errorf("got %q", got)
		}
	})
}
