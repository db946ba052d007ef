package freezer

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// tree makes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOfContainer(t *testing.T) {
	t.Parallel()
	v2 := map[string]string{"cgroup.controllers": "cpu\n"}
	tests := map[string]struct {
		mode  string
		group string // "" if there is none
		other string
	}{
		"containerd with cgroupfs, version 1":        {"v1", "freezer/kubepods/pod1/" + id, ""},
		"containerd with systemd, version 1":         {"v1", "freezer/kubepods.slice/x.slice/cri-containerd-" + id + ".scope", ""},
		"containerd with cgroupfs, version 2":        {"v2", "kubepods/pod1/" + id, ""},
		"containerd with systemd, version 2":         {"v2", "kubepods.slice/x.slice/cri-containerd-" + id + ".scope", ""},
		"CRI-O with cgroupfs, and its monitor":       {"v1", "freezer/kubepods/pod1/crio-" + id, "freezer/kubepods/pod1/crio-conmon-" + id},
		"CRI-O with systemd, and its monitor":        {"v2", "kubepods.slice/crio-" + id + ".scope", "kubepods.slice/crio-conmon-" + id + ".scope"},
		"a monitor alone is no container":            {"v2", "", "kubepods.slice/crio-conmon-" + id + ".scope"},
		"an ID that ends in the same way is another": {"v1", "", "freezer/kubepods/pod1/ff" + id},
		"a container that has ended":                 {"v1", "", "freezer/kubepods"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{}
			control := "freezer.state"
			if test.mode == "v2" {
				files, control = map[string]string{"cgroup.controllers": v2["cgroup.controllers"]}, "cgroup.freeze"
			}
			for _, group := range []string{test.group, test.other} {
				if group != "" {
					files[group+"/"+control] = "0"
				}
			}
			paths := Paths{Cgroup: tree(t, files)}
			group, err := paths.OfContainer(id)
			if test.group == "" {
				if !errors.Is(err, ErrNotFound) {
					t.Fatalf("OfContainer() = %v, %v, want ErrNotFound", group, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(paths.Cgroup, test.group); group.Path() != want {
				t.Errorf("found %s, want %s", group.Path(), want)
			}
			if mode, err := paths.Mode(); mode != test.mode || err != nil {
				t.Errorf("Mode() = %s, %v, want %s", mode, err, test.mode)
			}
		})
	}
}

func TestOfContainerRejectsWhatIsNoID(t *testing.T) {
	t.Parallel()
	paths := Paths{Cgroup: tree(t, map[string]string{"freezer/kubepods/freezer.state": "THAWED"})}
	for _, id := range []string{"", "kubepods", "..", "0123", id + "/.."} {
		if group, err := paths.OfContainer(id); err == nil {
			t.Errorf("OfContainer(%q) = %s, want an error", id, group.Path())
		}
	}
}

func TestOfProcess(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files   map[string]string
		cgroups string // of the process; "" if it has ended
		want    string // "" for an error
		err     string
	}{
		"version 1": {
			files:   map[string]string{"freezer/a/b/freezer.state": ""},
			cgroups: "5:memory:/x\n4:freezer:/a/b\n0::/y\n", want: "freezer/a/b",
		},
		"version 1, two controllers in one hierarchy": {
			files:   map[string]string{"freezer/a/freezer.state": ""},
			cgroups: "4:cpu,freezer:/a\n", want: "freezer/a",
		},
		"version 2": {
			files:   map[string]string{"cgroup.controllers": "", "a/cgroup.freeze": ""},
			cgroups: "0::/a\n", want: "a",
		},
		"both, with the freezer in version 1": {
			files:   map[string]string{"unified/cgroup.controllers": "", "freezer/a/freezer.state": ""},
			cgroups: "4:freezer:/a\n0::/b\n", want: "freezer/a",
		},
		"both, without a freezer in version 1": {
			files:   map[string]string{"unified/cgroup.controllers": "", "unified/b/cgroup.freeze": ""},
			cgroups: "4:memory:/a\n0::/b\n", want: "unified/b",
		},
		"a path with colons": {
			files:   map[string]string{"freezer/a:b:c/freezer.state": ""},
			cgroups: "4:freezer:/a:b:c\n", want: "freezer/a:b:c",
		},
		"a process that has ended": {
			files: map[string]string{"freezer/a/freezer.state": ""},
			err:   ErrNotFound.Error(),
		},
		"the root group has no freezer": {
			files:   map[string]string{"freezer/cgroup.procs": ""},
			cgroups: "4:freezer:/\n", err: ErrNotFound.Error(),
		},
		"another control group namespace": {
			files:   map[string]string{"freezer/a/freezer.state": ""},
			cgroups: "4:freezer:/../a\n", err: "which must be the node's",
		},
		"nothing is mounted": {
			files: map[string]string{"memory/a/cgroup.procs": ""}, cgroups: "4:memory:/a\n",
			err: "has no freezer",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proc := map[string]string{"self": ""}
			if test.cgroups != "" {
				proc["42/cgroup"] = test.cgroups
			}
			paths := Paths{Proc: tree(t, proc), Cgroup: tree(t, test.files)}
			group, err := paths.OfProcess(42)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("OfProcess() = %v, %v, want an error with %q", group, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(paths.Cgroup, test.want); group.Path() != want {
				t.Errorf("found %s, want %s", group.Path(), want)
			}
		})
	}
}

func TestState(t *testing.T) {
	t.Parallel()
	v1 := func(state string) map[string]string {
		return map[string]string{"freezer/" + id + "/freezer.state": state}
	}
	v2 := func(freeze, events string) map[string]string {
		return map[string]string{
			"cgroup.controllers": "", id + "/cgroup.freeze": freeze, id + "/cgroup.events": events,
		}
	}
	tests := map[string]struct {
		files map[string]string
		want  State
	}{
		"version 1, thawed":                        {v1("THAWED\n"), Thawed},
		"version 1, freezing":                      {v1("FREEZING\n"), Freezing},
		"version 1, frozen":                        {v1("FROZEN\n"), Frozen},
		"version 2, thawed":                        {v2("0\n", "populated 1\nfrozen 0\n"), Thawed},
		"version 2, freezing":                      {v2("1\n", "populated 1\nfrozen 0\n"), Freezing},
		"version 2, frozen":                        {v2("1\n", "populated 1\nfrozen 1\n"), Frozen},
		"version 2, frozen because an ancestor is": {v2("0\n", "populated 1\nfrozen 1\n"), Frozen},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			group, err := Paths{Cgroup: tree(t, test.files)}.OfContainer(id)
			if err != nil {
				t.Fatal(err)
			}
			if state, err := group.State(); state != test.want || err != nil {
				t.Errorf("State() = %s, %v, want %s", state, err, test.want)
			}
		})
	}
}

func TestThawOfWhatIsGoneIsNoError(t *testing.T) {
	t.Parallel()
	paths := Paths{Cgroup: tree(t, map[string]string{"freezer/" + id + "/freezer.state": "FROZEN"})}
	group, err := paths.OfContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(group.Path()); err != nil {
		t.Fatal(err)
	}
	if err := group.Thaw(t.Context()); err != nil {
		t.Errorf("Thaw() = %v", err)
	}
	if _, err := group.State(); !errors.Is(err, ErrNotFound) {
		t.Errorf("State() = %v, want ErrNotFound", err)
	}
	if err := group.Freeze(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("Freeze() = %v, want ErrNotFound", err)
	}
	if _, err := os.Stat(group.Path()); err == nil {
		t.Error("the control group was made again")
	}
}

// A file does not become frozen: the freeze ends with its context, and is undone.
func TestFreezeThatDoesNotSucceedIsUndone(t *testing.T) {
	t.Parallel()
	paths := Paths{Cgroup: tree(t, map[string]string{
		"cgroup.controllers": "", id + "/cgroup.freeze": "0", id + "/cgroup.events": "frozen 0\n",
	})}
	group, err := paths.OfContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := group.Freeze(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Freeze() = %v, want that the deadline has passed", err)
	}
	if text, err := os.ReadFile(filepath.Join(group.Path(), "cgroup.freeze")); string(text) != "0" || err != nil {
		t.Errorf("cgroup.freeze = %q, %v, want 0", text, err)
	}
}

// The kernel's freezers on this machine: a control group of this test's own, with a process
// that would say something if it ran.
func TestKernel(t *testing.T) {
	tested := 0
	for mode, dir := range map[string]string{
		"v1": "/sys/fs/cgroup", "v2": "/sys/fs/cgroup/unified", "v2 alone": "/sys/fs/cgroup",
	} {
		paths := Paths{Cgroup: dir}
		if found, err := paths.Mode(); err != nil || found != mode[:2] {
			continue // what this machine does not mount
		}
		tested++
		t.Run(mode, func(t *testing.T) { testKernel(t, paths) })
	}
	if tested == 0 {
		t.Fatal("this machine has no freezer; the test needs control groups of version 1 or 2")
	}
}

func testKernel(t *testing.T, paths Paths) {
	root, _, err := paths.hierarchy()
	if err != nil {
		t.Fatal(err)
	}
	parent, err := os.MkdirTemp(root, "freezer-test-")
	if err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("0", 52) + strconv.FormatInt(int64(os.Getpid())+1<<40, 16)
	dir := filepath.Join(parent, id)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	process := exec.Command("sleep", "300")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	group := &Cgroup{}
	t.Cleanup(func() {
		// In a frozen group of version 1 a killed process does not end.
		if group.dir != "" {
			if err := group.Thaw(context.Background()); err != nil {
				t.Error(err)
			}
		}
		if err := process.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = process.Wait() // says that it was killed
		for _, dir := range []string{dir, parent} {
			if err := unix.Rmdir(dir); err != nil {
				t.Errorf("removing %s: %v", dir, err)
			}
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(process.Process.Pid)), 0o644); err != nil {
		t.Fatal(err)
	}
	if group, err = paths.OfContainer(id); err != nil {
		t.Fatal(err)
	}
	if same, err := paths.OfProcess(process.Process.Pid); err != nil || same.Path() != group.Path() {
		t.Fatalf("OfProcess() = %v, %v, want %s", same, err, group.Path())
	}
	if pids, err := group.Processes(); err != nil || !slices.Equal(pids, []int{process.Process.Pid}) {
		t.Errorf("Processes() = %v, %v, want %d", pids, err, process.Process.Pid)
	}
	for range 2 { // both are idempotent
		if err := group.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantState(t, group, Frozen)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 2 {
		if err := group.Thaw(ended); err != nil {
			t.Fatal(err)
		}
		wantState(t, group, Thawed)
	}
}

func wantState(t *testing.T, group *Cgroup, want State) {
	t.Helper()
	if state, err := group.State(); state != want || err != nil {
		t.Errorf("State() = %s, %v, want %s", state, err, want)
	}
}

func TestAt(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		files map[string]string
		want  State
	}{
		"version 1": {map[string]string{"freezer.state": "FROZEN\n"}, Frozen},
		"version 2": {map[string]string{"cgroup.freeze": "1\n", "cgroup.events": "frozen 0\n"}, Freezing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := At(tree(t, tt.files))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := c.State(); err != nil || got != tt.want {
				t.Errorf("State() = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
	if _, err := At(filepath.Join(t.TempDir(), "gone")); !errors.Is(err, ErrNotFound) {
		t.Errorf("At() of no directory: %v", err)
	}
}
