package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConfigurationsOfCRIO(t *testing.T) {
	tests := map[string]struct{ handler, real string }{
		"packaged.conf": {"crun", "/usr/libexec/crio/crun"}, "default-1.28.conf": {"runc", "/usr/sbin/runc"},
	}
	for name, text := range corpus(t, "crio") {
		t.Run(name, func(t *testing.T) {
			tt := tests[name]
			h := newHost(t, "", map[string]string{crioConfig: "# empty\n", "/etc/crio/crio.conf.d/10-crio.conf": text})
			if err := os.Remove(h.real("/usr/bin/containerd")); err != nil {
				t.Fatal(err)
			}
			before := h.snapshot()
			o := h.options(nil)
			runtime := func() table {
				c, err := newCRIO(h.node, "", nil)
				if err != nil {
					t.Fatal(err)
				}
				all, _ := c.effective(nowTree)
				return all
			}
			want := clone(runtime())
			put(want, []string{tt.handler, "runtime_path"}, o.wrapperPath(tt.handler))
			h.install(o)
			if diff := cmp.Diff(want, runtime()); diff != "" {
				t.Error(diff)
			}
			if got := h.config(o, tt.handler).Runtime; got != tt.real {
				t.Errorf("the wrapper calls %q, want %q", got, tt.real)
			}
			after := h.snapshot()
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

func TestConfigurationsOfCRIOThatAreRefused(t *testing.T) {
	const runc = "[crio.runtime.runtimes.runc]\nruntime_path = \"/usr/bin/runc\"\n"
	tests := map[string]struct {
		text string
		says []string
	}{
		"no default handler among several": {runc + "[crio.runtime.runtimes.crun]\n", []string{"default_runtime", "--handler"}},
		"a handler that is not configured": {"[crio.runtime]\ndefault_runtime = \"crun\"\n" + runc, []string{"handler crun", "crio config"}},
		"a handler for virtual machines":   {runc + "runtime_type = \"vm\"\n", []string{`"vm"`}},
		"a handler that inherits":          {runc + "inherit_default_runtime = true\n", []string{"inherits"}},
		"a path for each platform":         {runc + "platform_runtime_paths = {\"linux/arm64\" = \"/usr/bin/crun\"}\n", []string{"platform_runtime_paths"}},
		"a file that is no TOML":           {"[crio\n", []string{"10-crio.conf", "line 1"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "", map[string]string{"/etc/crio/crio.conf.d/10-crio.conf": tt.text})
			before := h.snapshot()
			err := h.options(func(o *Options) { o.Runtime = crioName }).install(t.Context(), h.node)
			for _, text := range tt.says {
				if err == nil || !strings.Contains(err.Error(), text) {
					t.Errorf("the error does not say %q: %v", text, err)
				}
			}
			if diff := cmp.Diff(before, h.snapshot()); diff != "" {
				t.Errorf("something was changed: %s", diff)
			}
		})
	}
}

func TestADropInFileOfCRIOThatIsReadLaterIsRefused(t *testing.T) {
	text := corpus(t, "crio")["packaged.conf"]
	h := newHost(t, "", map[string]string{"/etc/crio/crio.conf.d/99-z.conf": text})
	err := h.options(func(o *Options) { o.Runtime = crioName }).install(t.Context(), h.node)
	if err == nil || !strings.Contains(err.Error(), "read after /etc/crio/crio.conf.d/99-holdfast.conf") {
		t.Errorf("got %v", err)
	}
}

// config returns the file beside the wrapper of a handler.
func (h *host) config(o *Options, handler string) wrapperConfig {
	h.t.Helper()
	var config wrapperConfig
	if err := json.Unmarshal([]byte(h.text(o.wrapperPath(handler)+".json")), &config); err != nil {
		h.t.Fatal(err)
	}
	return config
}

func TestHandlers(t *testing.T) {
	kind := corpus(t, "containerd")["kind.toml"]
	tests := map[string]struct {
		change     func(*Options)
		wrapped    []string
		notWrapped []string
	}{
		"the default handler":   {nil, []string{"runc"}, []string{"test-handler"}},
		"named handlers":        {func(o *Options) { o.Handlers = []string{"test-handler", "runc"} }, []string{"runc", "test-handler"}, nil},
		"a handler of its own":  {func(o *Options) { o.RuntimeClass = "restorable" }, []string{"restorable"}, []string{"runc", "test-handler"}},
		"another named handler": {func(o *Options) { o.Handlers = []string{"test-handler"} }, []string{"test-handler"}, []string{"runc"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "2.1.9", map[string]string{containerdConfig: kind})
			before, runc := h.snapshot(), clone(h.runtimeTable("runc"))
			o := h.options(tt.change)
			h.install(o)
			for _, handler := range tt.wrapped {
				want := clone(runc)
				want["pod_annotations"] = []any{annotations}
				put(want, []string{"options", "BinaryName"}, o.wrapperPath(handler))
				if handler == "test-handler" {
					delete(want, "base_runtime_spec")
				}
				if diff := cmp.Diff(want, h.runtimeTable(handler)); diff != "" {
					t.Errorf("handler %s: %s", handler, diff)
				}
				wantConfig := wrapperConfig{Runtime: "/usr/sbin/runc", Dir: "/var/lib/holdfast/restore", Wait: "1m30s"}
				if diff := cmp.Diff(wantConfig, h.config(o, handler)); diff != "" {
					t.Error(diff)
				}
			}
			for _, handler := range tt.notWrapped {
				if program := stringAt(h.runtimeTable(handler), "options", "BinaryName"); program != "" {
					t.Errorf("handler %s calls %s", handler, program)
				}
			}
			if out := fmt.Sprint(o.Out); o.RuntimeClass != "" && !strings.Contains(out, "kind: RuntimeClass\nmetadata: {name: restorable}\nhandler: restorable\n") {
				t.Errorf("no RuntimeClass is printed: %s", out)
			}
			h.uninstall(o)
			if diff := cmp.Diff(before, h.snapshot()); diff != "" {
				t.Errorf("after uninstall: %s", diff)
			}
		})
	}
}

func TestHandlersAreAddedOneByOne(t *testing.T) {
	h := newHost(t, "1.7.35", map[string]string{containerdConfig: corpus(t, "containerd")["kind.toml"]})
	before := h.snapshot()
	o := h.options(nil)
	h.install(o)
	h.install(h.options(func(o *Options) { o.RuntimeClass = "restorable" }))
	h.install(h.options(func(o *Options) { o.Handlers = []string{"test-handler"} }))
	for _, handler := range []string{"runc", "restorable", "test-handler"} {
		if got := stringAt(h.runtimeTable(handler), "options", "BinaryName"); got != o.wrapperPath(handler) {
			t.Errorf("handler %s calls %q", handler, got)
		}
	}
	h.uninstall(o)
	if diff := cmp.Diff(before, h.snapshot()); diff != "" {
		t.Errorf("after uninstall: %s", diff)
	}
}

// What the administrator has changed since stays, before and after.
func TestUninstallKeepsChangesOfTheAdministrator(t *testing.T) {
	tests := map[string]struct {
		text         string
		edit, wanted func(text string) string
	}{
		"a file of the administrator": {
			corpus(t, "containerd")["gke.toml"],
			func(text string) string {
				return strings.Replace(text, "oom_score = -999\n", "oom_score = -998 # gently\n", 1) + "\n[metrics]\naddress = '127.0.0.1:1338'\n"
			},
			func(text string) string {
				return strings.Replace(text, "oom_score = -999\n", "oom_score = -998 # gently\n", 1) + "\n[metrics]\naddress = '127.0.0.1:1338'\n"
			},
		},
		"a file of ours": {
			"", func(text string) string { return text + "[debug]\nlevel = 'debug'\n" },
			func(string) string { return "version = 2\n[debug]\nlevel = 'debug'\n" },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			if tt.text != "" {
				files[containerdConfig] = tt.text
			}
			h := newHost(t, "1.7.35", files)
			o := h.options(nil)
			h.install(o)
			h.write(containerdConfig, tt.edit(h.text(containerdConfig)), 0o644)
			h.install(o) // The wrapper stays installed beside it.
			if got := stringAt(h.runtimeTable("runc"), "options", "BinaryName"); got != o.wrapperPath("runc") {
				t.Errorf("containerd calls %q", got)
			}
			h.uninstall(o)
			if diff := cmp.Diff(tt.wanted(tt.text), h.text(containerdConfig)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestUninstallRefusesToBreakAConfigurationThatNamesTheWrapperByHand(t *testing.T) {
	h := newHost(t, "1.7.35", map[string]string{containerdConfig: corpus(t, "containerd")["kubeadm-1.7.toml"]})
	o := h.options(nil)
	h.install(o)
	h.write(containerdConfig, strings.ReplaceAll(h.text(containerdConfig), " "+mark, ""), 0o644)
	before := h.snapshot()
	err := o.uninstall(t.Context(), h.node)
	if err == nil || !strings.Contains(err.Error(), "by hand") {
		t.Errorf("got %v", err)
	}
	if diff := cmp.Diff(before, h.snapshot()); diff != "" {
		t.Errorf("something was changed: %s", diff)
	}
}

// A crash after any change of a file leaves a node whose configuration names only programs
// that are there, and the next run completes it.
func TestACrashAfterAnyChange(t *testing.T) {
	install := func(h *host, o *Options) error { return o.install(h.t.Context(), h.node) }
	uninstall := func(h *host, o *Options) error { return o.uninstall(h.t.Context(), h.node) }
	tests := map[string]struct {
		file    string
		earlier []func(*host, *Options) error
		run     func(*host, *Options) error
		changes int // at least
	}{
		"install in place":         {"kind.toml", nil, install, 13}, // two handlers with four changes for the try and two more, the configuration
		"install a drop-in file":   {"k3s-2.toml", nil, install, 7},
		"uninstall in place":       {"kind.toml", []func(*host, *Options) error{install}, uninstall, 5},
		"uninstall a drop-in file": {"k3s-2.toml", []func(*host, *Options) error{install}, uninstall, 3},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for crash := 0; ; crash++ {
				h := newHost(t, "2.1.9", map[string]string{containerdConfig: corpus(t, "containerd")[tt.file]})
				before := h.snapshot()
				o := h.options(nil)
				if tt.file == "kind.toml" {
					o.Handlers = []string{"runc", "test-handler"}
				}
				for _, earlier := range tt.earlier {
					if err := earlier(h, o); err != nil {
						t.Fatal(err)
					}
				}
				crashed := h.crashAfter(crash, func() error { return tt.run(h, o) })
				h.checkPrograms(o)
				if err := tt.run(h, o); err != nil {
					t.Fatal(err)
				}
				wrapped := stringAt(h.runtimeTable("runc"), "options", "BinaryName") == o.wrapperPath("runc")
				if wrapped != (len(tt.earlier) == 0) {
					t.Errorf("after the next run containerd calls the wrapper: %t", wrapped)
				}
				h.uninstall(o)
				if diff := cmp.Diff(before, h.snapshot()); diff != "" {
					t.Errorf("after uninstall: %s", diff)
				}
				if !crashed {
					if crash < tt.changes {
						t.Errorf("there were %d changes, want at least %d", crash, tt.changes)
					}
					return
				}
			}
		})
	}
}

// crashAfter ends a run after so many changes of files, and reports whether there were as
// many.
func (h *host) crashAfter(changes int, run func() error) (crashed bool) {
	h.t.Helper()
	defer func() {
		h.changed = func() {}
		crashed = recover() != nil
	}()
	h.changed = func() {
		if changes--; changes < 0 {
			panic("crash")
		}
	}
	if err := run(); err != nil {
		h.t.Error(err)
	}
	return false
}

// checkPrograms checks that all handlers that call the wrapper work.
func (h *host) checkPrograms(o *Options) {
	h.t.Helper()
	for _, handler := range []string{"runc", "test-handler"} {
		program := stringAt(h.runtimeTable(handler), "options", "BinaryName")
		if program != "" && (!isProgram(h.real(program)) || !isProgram(h.real(h.config(o, handler).Runtime))) {
			h.t.Errorf("handler %s calls %s, which does not work", handler, program)
		}
	}
}

// A file that a killed run has left half written does not disturb the next one.
func TestPartsOfAKilledRun(t *testing.T) {
	h := newHost(t, "2.1.9", map[string]string{containerdConfig: corpus(t, "containerd")["kind.toml"]})
	before := h.snapshot()
	for _, part := range []string{
		"/opt/holdfast/bin/.holdfast-runtime-runc.holdfast", "/opt/holdfast/bin/holdfast-runtime.candidate",
		"/opt/holdfast/bin/holdfast-runtime.candidate.json", "/etc/containerd/.config.toml.holdfast",
	} {
		h.write(part, "half", 0o600)
	}
	o := h.options(nil)
	h.install(o)
	h.uninstall(o)
	if diff := cmp.Diff(before, h.snapshot()); diff != "" {
		t.Error(diff)
	}
}

// A wrapper that does not run would keep all containers from starting.
func TestAWrapperThatDoesNotRunIsNotInstalled(t *testing.T) {
	h := newHost(t, "2.1.9", map[string]string{containerdConfig: corpus(t, "containerd")["kind.toml"]})
	refused := func(o *Options) {
		t.Helper()
		before := h.snapshot()
		h.tryResult = errors.New("exec format error")
		err := o.install(t.Context(), h.node)
		if err == nil || !strings.Contains(err.Error(), "does not run on the node") || !errors.Is(err, h.tryResult) {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff(before, h.snapshot()); diff != "" {
			t.Errorf("something was changed: %s", diff)
		}
		h.tryResult = nil
	}
	o := h.options(nil)
	refused(o)
	h.install(o)
	if err := os.WriteFile(o.Binary, []byte("a newer one"), 0o755); err != nil {
		t.Fatal(err)
	}
	refused(o)
	h.install(o)
	if got := h.text(o.wrapperPath("runc")); got != "a newer one" {
		t.Errorf("the wrapper is %q", got)
	}
}

func TestLinksStayAndLeadNowhereElse(t *testing.T) {
	text := corpus(t, "containerd")["kind.toml"]
	h := newHost(t, "2.1.9", map[string]string{"/var/lib/config/real.toml": text})
	// An absolute link of the node is one within its root.
	if err := os.MkdirAll(h.real("/etc/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/var/lib/config/real.toml", h.real(containerdConfig)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.real("/var/lib/config/real.toml"), 0o640); err != nil {
		t.Fatal(err)
	}
	o := h.options(nil)
	h.install(o)
	info, err := os.Stat(h.real("/var/lib/config/real.toml"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file has the mode %v: %v", info.Mode(), err)
	}
	if !strings.Contains(h.text("/var/lib/config/real.toml"), o.wrapperPath("runc")) {
		t.Error("the file that the link leads to was not changed")
	}
	if target, err := os.Readlink(h.real(containerdConfig)); err != nil || target != "/var/lib/config/real.toml" {
		t.Errorf("the link leads to %q: %v", target, err)
	}
}

// process adds a running CRI runtime to the node.
func (h *host) process(pid int, start, name string, args ...string) {
	h.t.Helper()
	for _, p := range []int{1, pid} {
		dir := filepath.Join("/proc", strconv.Itoa(p))
		h.write(dir+"/stat", "", 0o644)
		if err := os.MkdirAll(h.real(dir+"/ns"), 0o755); err != nil {
			h.t.Fatal(err)
		}
		_ = os.Remove(h.real(dir + "/ns/pid"))
		if err := os.Symlink("pid:[1]", h.real(dir+"/ns/pid")); err != nil {
			h.t.Fatal(err)
		}
	}
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	h.write(dir+"/stat", fmt.Sprintf("%d (%s) S %s%s 0\n", pid, name, strings.Repeat("1 ", 18), start), 0o644)
	h.write(dir+"/cmdline", strings.Join(append([]string{"/usr/bin/" + name}, args...), "\x00")+"\x00", 0o644)
	h.write(dir+"/environ", "PATH=/usr/bin\x00", 0o644)
	h.write(dir+"/cgroup", "0::/system.slice/"+name+"-of-test.service\n", 0o644)
	h.write("/proc/sys/kernel/random/boot_id", "boot\n", 0o644)
}

func TestTheRuntimeMustBeRestarted(t *testing.T) {
	const config = "/etc/elsewhere.toml"
	h := newHost(t, "2.1.9", map[string]string{config: corpus(t, "containerd")["kind.toml"]})
	h.process(7, "100", "containerd", "--config", config)
	h.process(8, "100", "containerd", "--config", "/var/run/docker/containerd/containerd.toml")
	o := h.options(nil)
	check := func(when string, restart bool, want error) {
		t.Helper()
		s, err := o.status(t.Context(), h.node)
		if err != nil {
			t.Fatal(err)
		}
		if s.RestartRequired != restart || !errors.Is(s.Err(), want) {
			t.Errorf("%s: got %+v, %v", when, s, s.Err())
		}
	}
	check("before", false, ErrNotInstalled)
	h.install(o)
	if got := h.config(o, "runc").Runtime; got != "/usr/bin/runc" {
		t.Errorf("the wrapper calls %s, which is not the first in the PATH of containerd", got)
	}
	if out := fmt.Sprint(o.Out); !strings.Contains(out, "systemctl restart containerd-of-test.service") {
		t.Errorf("it does not say how to restart: %s", out)
	}
	check("after install", true, ErrIncomplete)
	h.process(7, "200", "containerd", "--config", config)
	check("after a restart", false, nil)
	task := "/run/containerd/io.containerd.runtime.v2.task/k8s.io/0123/runtime"
	h.write(task, o.wrapperPath("runc"), 0o600)
	h.uninstall(o)
	check("after uninstall", true, ErrNotInstalled)
	if !isProgram(h.real(o.wrapperPath("runc"))) {
		t.Error("the wrapper was removed while containerd still calls it")
	}
	h.process(7, "300", "containerd", "--config", config)
	h.uninstall(o)
	if !isProgram(h.real(o.wrapperPath("runc"))) {
		t.Error("the wrapper was removed while a shim still calls it")
	}
	h.write(task, "/usr/bin/runc", 0o600)
	h.uninstall(o)
	if h.exists(o.InstallDir) {
		t.Error("the directory of the wrapper is left")
	}
	check("in the end", false, ErrNotInstalled)
}

func TestRestart(t *testing.T) {
	h := newHost(t, "2.1.9", map[string]string{containerdConfig: corpus(t, "containerd")["kind.toml"]})
	h.process(7, "100", "containerd")
	var calls []string
	start := 100
	run := h.run
	h.run = func(ctx context.Context, args ...string) (string, error) {
		if args[0] == "systemctl" {
			calls = append(calls, strings.Join(args, " "))
			start++
			h.process(7, strconv.Itoa(start), "containerd")
			return "", nil
		}
		return run(ctx, args...)
	}
	o := h.options(func(o *Options) { o.Restart = true })
	h.install(o)
	h.install(o)
	h.uninstall(o)
	want := []string{"systemctl restart containerd-of-test.service", "systemctl restart containerd-of-test.service"}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("want one restart for each change: %s", diff)
	}
	if h.exists(o.InstallDir) {
		t.Error("the wrapper is left after the restart")
	}
}

func TestTwoRuntimesOnANode(t *testing.T) {
	h := newHost(t, "2.1.9", map[string]string{containerdConfig: corpus(t, "containerd")["kind.toml"]})
	h.process(7, "100", "containerd")
	h.process(8, "100", "crio")
	err := h.options(nil).install(t.Context(), h.node)
	if err == nil || !strings.Contains(err.Error(), "--runtime") {
		t.Errorf("got %v", err)
	}
	h.install(h.options(func(o *Options) { o.Runtime = containerdName }))
}

func TestStatusSaysWhatIsMissing(t *testing.T) {
	tests := map[string]struct {
		breakIt func(h *host, o *Options)
		says    string
	}{
		"the wrapper":       {func(h *host, o *Options) { _ = os.Remove(h.real(o.wrapperPath("runc"))) }, "the wrapper is missing"},
		"its configuration": {func(h *host, o *Options) { h.write(o.wrapperPath("runc")+".json", "{", 0o644) }, "configuration cannot be read"},
		"the real runtime":  {func(h *host, _ *Options) { _ = os.Remove(h.real("/usr/sbin/runc")) }, "/usr/sbin/runc"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "2.1.9", map[string]string{containerdConfig: corpus(t, "containerd")["kind.toml"]})
			o := h.options(nil)
			h.install(o)
			tt.breakIt(h, o)
			s, err := o.status(t.Context(), h.node)
			if err != nil {
				t.Fatal(err)
			}
			if h := s.Handlers[0]; h.Name != "runc" || h.Installed || !strings.Contains(h.Problem, tt.says) || !errors.Is(s.Err(), ErrIncomplete) {
				t.Errorf("got %+v, %v", h, s.Err())
			}
			h.install(o)
			if s, err = o.status(t.Context(), h.node); err != nil || s.Err() != nil {
				t.Errorf("after another run: %+v, %v", s, err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	h := newHost(t, "", nil)
	err := h.options(func(o *Options) {
		o.HostRoot, o.InstallDir, o.Config, o.Wait = "host", "bin", "config.toml", 0
		o.RuntimeClass, o.Handlers = "Upper", []string{"../runc"}
	}).Validate()
	for _, flag := range []string{"--host-root", "--install-dir", "--config", "--wait", "--runtime-class=Upper", "--handler=../runc", "give only one"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s is missing in: %v", flag, err)
		}
	}
	if err := h.options(nil).Validate(); err != nil {
		t.Error(err)
	}
}
