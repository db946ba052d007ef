package install

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A host is a directory with the files of a node.
type host struct {
	*node
	t *testing.T
	// tryResult is the error of the wrapper that is tried on the node.
	tryResult error
}

// newHost returns a node with runc and crun and these files. Its containerd has a version.
func newHost(t *testing.T, version string, files map[string]string) *host {
	t.Helper()
	h := &host{&node{root: t.TempDir(), changed: func() {}}, t, nil}
	h.run = func(_ context.Context, args ...string) (string, error) {
		if len(args) == 2 && filepath.Base(args[0]) == containerdName && args[1] == "--version" && version != "" {
			return "containerd github.com/containerd/containerd/v2 " + version + " 0123456789abcdef\n", nil
		}
		if strings.HasSuffix(args[0], "holdfast-runtime.candidate") {
			return "", h.tryResult
		}
		return "", errors.New("no such program")
	}
	for _, program := range []string{"/usr/bin/runc", "/usr/sbin/runc", "/usr/bin/crun", "/usr/bin/containerd", "/usr/libexec/crio/crun", "/usr/libexec/crio/runc"} {
		h.write(program, "#!/bin/sh\n", 0o755)
	}
	for name, text := range files {
		h.write(name, text, 0o644)
	}
	return h
}

func (h *host) write(name, text string, mode os.FileMode) {
	h.t.Helper()
	file := h.real(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) text(name string) string {
	h.t.Helper()
	text, err := h.read(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

// snapshot returns all files with their contents and modes.
func (h *host) snapshot() map[string]string {
	h.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(h.root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, h.root)] = info.Mode().String() + " " + string(text)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

// options returns what an installation needs; its output goes to a buffer.
func (h *host) options(change func(*Options)) *Options {
	h.t.Helper()
	binary := filepath.Join(h.t.TempDir(), "holdfast-runtime")
	if err := os.WriteFile(binary, []byte("#!/bin/sh\nexec runc \"$@\"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	o := &Options{
		HostRoot: h.root, InstallDir: "/opt/holdfast/bin", Binary: binary, TicketDir: "/var/lib/holdfast/restore", Wait: 90e9, Out: &strings.Builder{},
	}
	if change != nil {
		change(o)
	}
	return o
}

func (h *host) install(o *Options) {
	h.t.Helper()
	if err := o.install(h.t.Context(), h.node); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) uninstall(o *Options) {
	h.t.Helper()
	if err := o.uninstall(h.t.Context(), h.node); err != nil {
		h.t.Fatal(err)
	}
}

// runtimeTable returns the handler's settings as containerd of this version merges them.
func (h *host) runtimeTable(handler string) table {
	h.t.Helper()
	c, err := newContainerd(h.t.Context(), h.node, "", nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return tableAt(c.effective(nowTree), "containerd", "runtimes", handler)
}

// Whatever the configuration looks like: the wrapper is called, the other settings stay, a
// second run changes nothing, and uninstall restores every byte.
func TestConfigurationsOfContainerd(t *testing.T) {
	versions := map[string][]string{
		"default-2.1.toml": {"2.1.9"}, "k3s-2.toml": {"2.1.4"}, "dotted.toml": {"2.0.5"},
		"default-1.6.toml": {"1.6.39", "1.7.35"}, // 2.x does not accept keys like runtime_engine
	}
	for name, text := range corpus(t, "containerd") {
		for _, version := range append(versions[name], "1.7.35", "2.4.2")[:max(1, len(versions[name]))] {
			t.Run(name+" with "+version, func(t *testing.T) {
				h := newHost(t, version, map[string]string{
					containerdConfig: text,
					"/var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.d/.keep": "",
				})
				before, beforeTable := h.snapshot(), clone(h.runtimeTable("runc"))
				o := h.options(nil)
				h.install(o)
				after, afterTable := h.snapshot(), clone(h.runtimeTable("runc"))
				for _, path := range [][]string{{"pod_annotations"}, {"options", "BinaryName"}, {"runtime_type"}} {
					want := map[string]any{"BinaryName": "/opt/holdfast/bin/holdfast-runtime-runc", "runtime_type": runcType}[path[len(path)-1]]
					if path[0] == "pod_annotations" {
						want = append(slices.Clone(listAt(beforeTable, path...)), annotations)
					}
					if diff := cmp.Diff(want, at(afterTable, path...)); diff != "" {
						t.Errorf("%s: %s", path, diff)
					}
					put(beforeTable, path, want)
				}
				if diff := cmp.Diff(beforeTable, afterTable); diff != "" {
					t.Errorf("other settings of the handler changed: %s", diff)
				}
				h.install(o)
				if diff := cmp.Diff(after, h.snapshot()); diff != "" {
					t.Errorf("a second run changes: %s", diff)
				}
				h.uninstall(o)
				if diff := cmp.Diff(before, h.snapshot()); diff != "" {
					t.Errorf("after uninstall: %s", diff)
				}
			})
		}
	}
}

func TestWhereTheConfigurationOfContainerdIsChanged(t *testing.T) {
	const cri2, cri3 = `[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]`, `[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]`
	const runc = "\nruntime_type = \"io.containerd.runc.v2\"\n"
	tests := map[string]struct {
		version string
		files   map[string]string
		changes []string
	}{
		"containerd 2 reads a drop-in file": {
			"2.1.9", map[string]string{containerdConfig: "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" + cri3 + runc},
			[]string{"/etc/containerd/conf.d/zz-holdfast.toml"},
		},
		"containerd 2 looks for drop-in files beside the file that imports them": {
			"2.1.9", map[string]string{containerdConfig: "version = 2\nimports = [\"conf.d/*.toml\"]\n" + cri2 + runc},
			[]string{"/etc/containerd/conf.d/zz-holdfast.toml"},
		},
		"containerd 1 would lose the plugin's settings by a drop-in file": {
			"1.7.35", map[string]string{containerdConfig: "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" + cri2 + runc},
			[]string{containerdConfig},
		},
		"containerd 1 takes the plugin's settings from the last file that has some": {
			"1.6.39", map[string]string{
				containerdConfig:                "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" + cri2 + runc,
				"/etc/containerd/conf.d/a.toml": "version = 2\n" + cri2 + runc,
				"/etc/containerd/conf.d/b.toml": "version = 2\n[debug]\nlevel = \"info\"\n",
			},
			[]string{"/etc/containerd/conf.d/a.toml"},
		},
		"an unknown version that reads only one file with the plugin's settings gets them there": {
			"", map[string]string{
				containerdConfig:                "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
				"/etc/containerd/conf.d/a.toml": cri2 + runc,
			},
			[]string{"/etc/containerd/conf.d/a.toml"},
		},
		"an import of a single file is no place for drop-in files": {
			"2.1.9", map[string]string{
				containerdConfig:             "version = 3\nimports = [\"/etc/containerd/other.toml\"]\n" + cri3 + runc,
				"/etc/containerd/other.toml": "version = 3\n",
			},
			[]string{containerdConfig},
		},
		"without any file containerd gets one": {
			"1.7.35", nil, []string{containerdConfig},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.version, tt.files)
			before := h.snapshot()
			o := h.options(nil)
			h.install(o)
			var changes []string
			for file, text := range h.snapshot() {
				if before[file] != text && !strings.HasPrefix(file, o.InstallDir) {
					changes = append(changes, file)
				}
			}
			if diff := cmp.Diff(tt.changes, changes); diff != "" {
				t.Error(diff)
			}
			if got := stringAt(h.runtimeTable("runc"), "options", "BinaryName"); got != o.wrapperPath("runc") {
				t.Errorf("containerd calls %q", got)
			}
			if got := stringAt(h.runtimeTable("runc"), "runtime_type"); got != runcType {
				t.Errorf("the handler has the type %q", got)
			}
			h.uninstall(o)
			if diff := cmp.Diff(before, h.snapshot()); diff != "" {
				t.Errorf("after uninstall: %s", diff)
			}
		})
	}
}

// What is not understood is refused before anything is changed, with a way out.
func TestConfigurationsOfContainerdThatAreRefused(t *testing.T) {
	const cri = `[plugins."io.containerd.grpc.v1.cri".containerd`
	const head = "version = 2\n" + cri + ".runtimes.runc]\n"
	const runc = head + "runtime_type = \"io.containerd.runc.v2\"\n"
	tests := map[string]struct {
		files   map[string]string
		version string
		change  func(*Options)
		says    []string
	}{
		"a file that is no TOML": {
			files: map[string]string{containerdConfig: "version = 2\n[x\n"}, says: []string{containerdConfig, "line 2", "correct it"},
		},
		"version 1": {
			files: map[string]string{containerdConfig: "[plugins.cri]\n"}, says: []string{"version 0", "config migrate"},
		},
		"a version of the future": {
			files: map[string]string{containerdConfig: "version = 5\n"}, says: []string{"version 5", "2, 3 and 4"},
		},
		"containerd 1.5": {version: "1.5.18", says: []string{"1.5.18", "supported are"}},
		"containerd 3":   {version: "3.0.0", says: []string{"3.0.0", "supported are"}},
		"Docker's file, which disables the CRI plugin": {
			files: map[string]string{containerdConfig: "version = 2\ndisabled_plugins = [\"cri\"]\n"}, says: []string{"disables the CRI plugin", "--config"},
		},
		"a runtime type that is no runc": {
			files: map[string]string{containerdConfig: head + "runtime_type = \"io.containerd.kata.v2\"\n"}, says: []string{"io.containerd.kata.v2", "--handler"},
		},
		"the runtime type that containerd 1.4 deprecated": {
			files: map[string]string{containerdConfig: head + "runtime_type = \"io.containerd.runc.v1\"\n"}, says: []string{"io.containerd.runc.v1"},
		},
		"a deprecated default_runtime": {
			files: map[string]string{containerdConfig: runc + cri + ".default_runtime]\nruntime_type = \"io.containerd.runc.v2\"\n"}, says: []string{"default_runtime"},
		},
		"a handler that there is not": {
			files: map[string]string{containerdConfig: runc}, change: func(o *Options) { o.Handlers = []string{"crun"} }, says: []string{"handler crun", "no such handler"},
		},
		"a wrapper of somebody else": {
			files: map[string]string{
				containerdConfig:                    runc + cri + ".runtimes.runc.options]\nBinaryName = \"/usr/bin/nvidia-container-runtime\"\n",
				"/usr/bin/nvidia-container-runtime": "",
			},
			says: []string{"nvidia-container-runtime", "neither runc nor crun", "--handler"},
		},
		"a runtime that is missing": {
			files: map[string]string{containerdConfig: runc + cri + ".runtimes.runc.options]\nBinaryName = \"/usr/bin/gone\"\n"}, says: []string{"/usr/bin/gone", "no program"},
		},
		"a wrapper of ours that was put there by hand": {
			files: map[string]string{
				containerdConfig:            runc + cri + ".runtimes.runc.options]\nBinaryName = \"/usr/bin/holdfast-runtime\"\n",
				"/usr/bin/holdfast-runtime": "",
			},
			says: []string{"/usr/bin/holdfast-runtime", "by other means"},
		},
		"options within a line": {
			files: map[string]string{containerdConfig: runc + "options = {SystemdCgroup = true}\n"}, says: []string{"inline table"},
		},
		"a generated file without a place for drop-in files": {
			files: map[string]string{containerdConfig: "# File generated by k3s. DO NOT EDIT. Use config.toml.tmpl instead.\n" + runc}, says: []string{"DO NOT EDIT", "--config"},
		},
		"two files with the plugin's settings and an unknown version": {
			files: map[string]string{containerdConfig: "imports = [\"/etc/containerd/a.toml\"]\n" + runc, "/etc/containerd/a.toml": runc}, says: []string{"/etc/containerd/a.toml", "one file"},
		},
		"an imported file that is missing": {
			files: map[string]string{containerdConfig: "imports = [\"/etc/containerd/a.toml\"]\n" + runc}, says: []string{"/etc/containerd/a.toml", "does not exist"},
		},
		"a drop-in file that is read after ours": {
			version: "2.1.9",
			files: map[string]string{
				containerdConfig: "imports = [\"/etc/containerd/conf.d/*.toml\"]\n" + runc, "/etc/containerd/conf.d/zzz.toml": runc,
			},
			says: []string{"zzz.toml", "earlier"},
		},
		"a new handler with the name of another": {
			files: map[string]string{containerdConfig: runc}, change: func(o *Options) { o.RuntimeClass = "runc" }, says: []string{"--runtime-class=runc", "already"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.version, tt.files)
			for _, program := range slices.Collect(maps.Keys(tt.files)) {
				if strings.HasPrefix(program, "/usr/bin/") {
					h.write(program, "#!/bin/sh\n", 0o755)
					if err := os.Chmod(h.real(program), 0o755); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := h.snapshot()
			err := h.options(tt.change).install(t.Context(), h.node)
			if err == nil {
				t.Fatal("there is no error")
			}
			for _, text := range tt.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			if diff := cmp.Diff(before, h.snapshot()); diff != "" {
				t.Errorf("something was changed: %s", diff)
			}
			if h.exists("/opt/holdfast") {
				t.Error("the directory of the wrapper is left")
			}
		})
	}
}

func TestHowContainerdMergesFiles(t *testing.T) {
	const cri = `plugins."io.containerd.grpc.v1.cri"`
	const root = "version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n[" + cri + "]\nsandbox_image = \"pause\"\n" +
		"[" + cri + ".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\npod_annotations = [\"a\", \"b\"]\n"
	const imported = "[" + cri + ".containerd.runtimes.runc]\npod_annotations = [\"c\"]\n"
	tests := map[string]struct {
		version string
		want    table
	}{
		"containerd 1 takes the plugin's table of the last file only": {
			"1.7.35", table{"containerd": table{"runtimes": table{"runc": table{"pod_annotations": []any{"c"}}}}},
		},
		"containerd 2 merges tables and replaces arrays": {
			"2.1.9", table{"sandbox_image": "pause", "containerd": table{"runtimes": table{"runc": table{
				"runtime_type": runcType, "pod_annotations": []any{"c"},
			}}}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, tt.version, map[string]string{containerdConfig: root, "/etc/containerd/conf.d/a.toml": imported})
			c, err := newContainerd(t.Context(), h.node, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.effective(nowTree)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
