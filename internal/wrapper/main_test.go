package wrapper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/mounts"
	"github.com/holdfast-io/holdfast/internal/ticket"
)

// calledAs is the name of the link under which a test calls this program as the wrapper.
const calledAs = "oci-runtime"

func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); name == calledAs || name == workerName {
		os.Exit(Main(os.Args))
	}
	os.Exit(m.Run())
}

// fakeRuntime is an OCI runtime that writes down how it was called. What else it does is up
// to files in its directory.
const fakeRuntime = `#!/bin/sh
dir=$(dirname "$0")
echo "$*" >>"$dir/calls"
echo $$ >"$dir/pid"
echo "$COLOR" >"$dir/color"
# 10 and 11 are the shell's own.
ls /proc/$$/fd >"$dir/descriptors"
for id; do
	case $previous in
	--work-path) work=$id ;;
	--root) root=$id ;;
	--pid-file) pidfile=$id ;;
	esac
	previous=$id
done
case " $* " in
*" restore "*)
	cp "$CRIU_CONFIG_FILE" "$dir/criu.conf"
	mkdir -p "$root/$id"
	echo restored
	setsid sleep 1000 >/dev/null 2>&1 </dev/null &
	echo $! >"$dir/container"
	if [ -e "$dir/fail" ]; then
		cp "$dir/fail" "$work/restore.log"
		exit 1
	fi
	if [ -e "$dir/criu" ]; then
		# As runc, which reads from a socket that the processes of the container have, too.
		mkfifo "$dir/socket"
		sleep 1000 >"$dir/socket" 2>&1 </dev/null &
		"$dir/criu" &
		exec grep -q "an answer" "$dir/socket"
	fi
	if [ -e "$dir/hang" ]; then
		# As CRIU and runc, which mount in these directories.
		mkdir "$work/.criu.cgyard" "$root/$id/criu-root"
		mount --bind "$dir/bundle" "$work/.criu.cgyard"
		mount --bind "$dir/bundle" "$root/$id/criu-root"
		echo >"$dir/hangs"
		wait
	fi
	echo $! >"$pidfile"
	;;
*" delete "*) rm -rf "$root/$id" ;;
*" state "*) echo '{"id":"abc","status":"running","pid":7}' ;;
*" exec "*) exit 7 ;;
esac
`

// A fixture is a directory with the wrapper, a fake runtime and the bundle of a container.
type fixture struct {
	dir   string
	place *ticket.Container
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.place, err = ticket.At(f.path("tickets"), "uid-1", "main")
	if err := errors.Join(err, os.Symlink(self, f.path(calledAs)), os.MkdirAll(f.path("bundle/rootfs"), 0o755)); err != nil {
		t.Fatal(err)
	}
	f.write(t, "runtime", fakeRuntime)
	f.write(t, calledAs+".json", fmt.Sprintf(`{"runtime": %q, "dir": %q, "wait": "100ms"}`, f.path("runtime"), f.path("tickets")))
	f.writeSpec(t, "")
	return f
}

func (f *fixture) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fixture) write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(f.path(name)), 0o755), os.WriteFile(f.path(name), []byte(text), 0o755)); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(f.path(name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// specOf is the specification of the container, with a request if that is not empty.
func specOf(request string) string {
	annotations := map[string]string{containerdType: "container", containerdUID: "uid-1", containerdName: "main"}
	if request != "" {
		annotations[ticket.Annotation] = request
	}
	text, _ := json.Marshal(map[string]any{"root": map[string]string{"path": "rootfs"}, "annotations": annotations}) // Strings can be encoded.
	return string(text)
}

func (f *fixture) writeSpec(t *testing.T, request string) {
	t.Helper()
	f.write(t, "bundle/config.json", specOf(request))
}

// stage writes a checkpoint of the container, and issues a ticket for the request c-1.
func (f *fixture) stage(t *testing.T) {
	t.Helper()
	data, err := filepath.Rel(f.dir, f.place.DataDir())
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, filepath.Join(data, "spec.dump"), specOf(""))
	f.write(t, filepath.Join(data, rootfsDiff), string(pack(t, file("changed", "changed"))))
	f.issue(t, ticket.Ticket{Request: "c-1", Decision: ticket.Restore, CloseTCP: true, Expires: time.Now().Add(time.Hour)})
}

func (f *fixture) issue(t *testing.T, issued ticket.Ticket) {
	t.Helper()
	if err := f.place.Issue(issued); err != nil {
		t.Fatal(err)
	}
}

// args are the arguments of a call, as containerd has them.
func (f *fixture) args(args ...string) []string {
	return append([]string{"--root", f.path("state"), "--log", f.path("log.json"), "--log-format", "json"}, args...)
}

func (f *fixture) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(f.path(calledAs), f.args(args...)...)
	cmd.Env = append(os.Environ(), "COLOR=blue")
	output, err := os.Create(f.path("output"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { output.Close() })
	cmd.Stdout, cmd.Stderr = output, output
	return cmd
}

func (f *fixture) create(t *testing.T) *exec.Cmd {
	t.Helper()
	return f.command(t, "create", "--bundle", f.path("bundle"), "--pid-file", f.path("pid-file"), "abc")
}

// exitCode runs a command.
func exitCode(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

func (f *fixture) calls(t *testing.T) []string {
	t.Helper()
	text := f.read(t, "calls")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// lastMessage is the last error of the log.
func (f *fixture) lastMessage(t *testing.T) string {
	t.Helper()
	return lastError(f.path("log.json"), 0)
}

func TestEverythingElseIsExecutedByTheRuntime(t *testing.T) {
	tests := map[string]struct {
		args []string
		code int
	}{
		"create of an ordinary container":  {[]string{"create", "--bundle", "BUNDLE", "abc"}, 0},
		"create of a bundle that is gone":  {[]string{"create", "--bundle", "/nowhere", "abc"}, 0},
		"run":                              {[]string{"run", "--bundle", "BUNDLE", "abc"}, 0},
		"start of an ordinary container":   {[]string{"start", "abc"}, 0},
		"state of an ordinary container":   {[]string{"state", "abc"}, 0},
		"kill":                             {[]string{"kill", "--all", "abc", "9"}, 0},
		"exec, whose exit code is another": {[]string{"exec", "--process", "a file", "abc"}, 7},
		"delete":                           {[]string{"delete", "--force", "abc"}, 0},
		"a command that nobody knows":      {[]string{"conjure", "abc"}, 0},
		"no command":                       {nil, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			for i, arg := range tt.args {
				tt.args[i] = strings.ReplaceAll(arg, "BUNDLE", f.path("bundle"))
			}
			direct := exec.Command(f.path("runtime"), f.args(tt.args...)...)
			withDescriptor(t, direct)
			exitCode(t, direct)
			want := []string{f.read(t, "calls"), f.read(t, "calls")}
			descriptors := f.read(t, "descriptors")
			cmd := f.command(t, tt.args...)
			withDescriptor(t, cmd)
			if code := exitCode(t, cmd); code != tt.code {
				t.Errorf("the exit code is %d, want %d: %s", code, tt.code, f.read(t, "output"))
			}
			if !slices.Equal(f.calls(t), want) {
				t.Errorf("the runtime was called with %q, want %q", f.calls(t), want)
			}
			// Signals reach it, because it is the same process.
			if pid := f.read(t, "pid"); pid != strconv.Itoa(cmd.Process.Pid) {
				t.Errorf("the runtime is process %s, and the wrapper was %d", pid, cmd.Process.Pid)
			}
			if f.read(t, "color") != "blue" {
				t.Error("the runtime has another environment")
			}
			if got := f.read(t, "descriptors"); got != descriptors {
				t.Errorf("the runtime has the descriptors %s, and %s without the wrapper", got, descriptors)
			}
		})
	}
}

// withDescriptor gives a command a descriptor more than the standard ones.
func withDescriptor(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	extra, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { extra.Close() })
	cmd.ExtraFiles = []*os.File{extra}
}

func TestATicketRestores(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.writeSpec(t, "c-1")
	f.stage(t)
	cmd := f.create(t)
	withDescriptor(t, cmd)
	if code := exitCode(t, cmd); code != 0 {
		t.Fatalf("the exit code is %d: %s", code, f.read(t, "output"))
	}
	defer f.killContainer(t)
	want := strings.Join(f.args("restore", "--detach", "--file-locks", "--bundle", f.path("bundle"), "--pid-file", f.path("pid-file"),
		"--image-path", f.place.DataDir()+"/checkpoint", "--work-path", f.place.Dir()+"/"+workDir, "abc"), " ")
	if !slices.Equal(f.calls(t), []string{want}) {
		t.Errorf("the runtime was called with %q, want %q", f.calls(t), want)
	}
	for name, want := range map[string]string{
		"descriptors": "0\n1\n10\n11\n2", "criu.conf": "tcp-close", "bundle/rootfs/changed": "changed", "output": "restored", "pid-file": f.read(t, "container"),
	} {
		if got := f.read(t, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !f.containerLives(t) {
		t.Error("the container does not run")
	}
	if _, err := os.Stat(f.place.Dir() + "/" + workDir); err == nil {
		t.Error("CRIU's directory is left")
	}
	outcome, err := f.place.Outcome()
	if err != nil || outcome.Request != "c-1" || outcome.ContainerID != "abc" || outcome.Error != "" ||
		outcome.RootfsSeconds <= 0 || outcome.RestoreSeconds <= 0 || outcome.Ended.Before(outcome.Started) {
		t.Errorf("the outcome is %+v, %v", outcome, err)
	}
	f.checkStart(t)
}

// checkStart checks that a restored container is "created" until it is started, once.
func (f *fixture) checkStart(t *testing.T) {
	t.Helper()
	status := func() string {
		if code := exitCode(t, f.command(t, "state", "abc")); code != 0 {
			t.Errorf("state ends with %d", code)
		}
		var state struct{ Status string }
		if err := json.Unmarshal([]byte(f.read(t, "output")), &state); err != nil {
			t.Error(err)
		}
		return state.Status
	}
	if got := status(); got != "created" {
		t.Errorf("before the start, the state is %q", got)
	}
	before := len(f.calls(t))
	if code := exitCode(t, f.command(t, "start", "abc")); code != 0 || len(f.calls(t)) != before {
		t.Errorf("the first start ends with %d, and has called the runtime %d times", code, len(f.calls(t))-before)
	}
	if got := status(); got != "running" {
		t.Errorf("after the start, the state is %q", got)
	}
	before = len(f.calls(t))
	if exitCode(t, f.command(t, "start", "abc")); len(f.calls(t)) != before+1 {
		t.Error("the runtime does not know of the second start")
	}
}

// containerLives reports whether the container of the fake runtime runs.
func (f *fixture) containerLives(t *testing.T) bool {
	t.Helper()
	pid, err := strconv.Atoi(f.read(t, "container"))
	if err != nil {
		t.Fatal(err)
	}
	p, ok := stat(pid)
	return ok && !p.ended()
}

func (f *fixture) killContainer(t *testing.T) {
	t.Helper()
	if pid, err := strconv.Atoi(f.read(t, "container")); err == nil && f.containerLives(t) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

func TestStartsThatFail(t *testing.T) {
	tests := map[string]struct {
		request string
		prepare func(*testing.T, *fixture)
		want    string
		calls   []string // commands of the runtime
		outcome string   // its error; "" if there is none
		never   bool
	}{
		"without a ticket for its request": {
			request: "c-1", prepare: func(*testing.T, *fixture) {}, want: "waits for the restore from c-1: the agent has issued no ticket within 100ms",
		},
		"with a ticket that is garbage": {
			request: "c-1", prepare: func(t *testing.T, f *fixture) { f.write(t, "tickets/uid-1/main/ticket.json", "{") }, want: "its ticket cannot be used",
		},
		"with a ticket to fail": {
			prepare: func(t *testing.T, f *fixture) {
				f.issue(t, ticket.Ticket{Decision: ticket.Fail, Message: "the image differs"})
			},
			want: "the container is not started: the image differs",
		},
		"with a ticket that has expired": {
			prepare: func(t *testing.T, f *fixture) {
				f.issue(t, ticket.Ticket{Decision: ticket.Restore, Expires: time.Now().Add(-time.Minute)})
			},
			want: "it has expired", outcome: "it has expired",
		},
		"without the files of the checkpoint": {
			prepare: func(t *testing.T, f *fixture) {
				f.issue(t, ticket.Ticket{Decision: ticket.Restore, Expires: time.Now().Add(time.Hour)})
			},
			want: "the checkpoint is not whole", outcome: "the checkpoint is not whole",
		},
		"with a specification that differs": {
			prepare: func(t *testing.T, f *fixture) {
				f.stage(t)
				f.write(t, "tickets/uid-1/main/data/spec.dump", `{"process": {"cwd": "/srv"}}`)
			},
			want: "working directory", outcome: "working directory", never: true,
		},
		"with a hostile archive": {
			prepare: func(t *testing.T, f *fixture) {
				f.stage(t)
				f.write(t, "tickets/uid-1/main/data/rootfs-diff.tar", string(pack(t, file("../evil", "x"))))
			},
			want: "leads out", outcome: "leads out",
		},
		"when CRIU finds a file of another size": {
			prepare: func(t *testing.T, f *fixture) {
				f.stage(t)
				f.write(t, "fail", "(00.1) Error (criu/rlimit.c:7): Can't setup RLIMIT_NOFILE for self\n"+
					"(00.2)  1: Error (criu/files-reg.c:1): File data/log has bad size 5 (expect 3)\n(00.3) Error (criu/cr-restore.c:9): Restoring FAILED.\n")
			},
			want: "File data/log has bad size 5 (expect 3) (VolumeChanged:", outcome: "VolumeChanged", calls: []string{"restore", "delete"}, never: true,
		},
		"when connections of the container that was stopped still have its port": {
			prepare: func(t *testing.T, f *fixture) {
				f.stage(t)
				f.write(t, "fail", "(00.2) Error (criu/sk-inet.c:1059): inet: Can't bind inet socket (id 5): Address already in use\n")
			},
			want: "still close", outcome: "AddressBound", calls: []string{"restore", "delete"},
		},
		"when CRIU dies": {
			prepare: func(t *testing.T, f *fixture) { f.stage(t); f.write(t, "criu", "#!/bin/sh\nexit 1\n") },
			want:    "exit status 1", outcome: "exit status 1", calls: []string{"restore", "delete"},
		},
		"when CRIU says nothing": {
			prepare: func(t *testing.T, f *fixture) { f.stage(t); f.write(t, "fail", "") },
			want:    "exit status 1", outcome: "exit status 1", calls: []string{"restore", "delete"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.writeSpec(t, tt.request)
			tt.prepare(t, f)
			if code := exitCode(t, f.create(t)); code != 1 {
				t.Errorf("the exit code is %d", code)
			}
			for _, got := range []string{f.lastMessage(t), f.read(t, "output")} {
				if !strings.Contains(got, tt.want) {
					t.Errorf("it says %q, want %q in it", got, tt.want)
				}
			}
			f.checkRuntimeCalls(t, tt.calls)
			outcome, err := f.place.Outcome()
			if tt.outcome == "" && !errors.Is(err, ticket.ErrNone) || tt.outcome != "" && (err != nil || !strings.Contains(outcome.Error, tt.outcome) || outcome.Incompatible != tt.never) {
				t.Errorf("the outcome is %+v, %v, want %q, %v", outcome, err, tt.outcome, tt.never)
			}
			f.checkNothingLeft(t)
		})
	}
}

// checkRuntimeCalls checks which commands of the runtime were called.
func (f *fixture) checkRuntimeCalls(t *testing.T, want []string) {
	t.Helper()
	var commands []string
	for _, call := range f.calls(t) {
		commands = append(commands, parse(strings.Fields(call)).command)
	}
	if !slices.Equal(commands, want) {
		t.Errorf("the runtime was called for %q, want %q", commands, want)
	}
}

// checkNothingLeft checks that no process and no file of a restore is left.
func (f *fixture) checkNothingLeft(t *testing.T) {
	t.Helper()
	if f.read(t, "container") != "" && f.containerLives(t) {
		t.Error("the container runs")
	}
	if points, err := mounts.Below(f.dir); err != nil || len(points) > 0 {
		t.Errorf("these mounts are left: %q, %v", points, err)
	}
	if !exists(f.path("bundle/config.json")) {
		t.Error("what was mounted is removed")
	}
	for _, name := range []string{f.path("state/abc"), f.place.Dir() + "/" + workDir} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is left", name)
		}
	}
}

func TestRunDoesNotRestore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.stage(t)
	if code := exitCode(t, f.command(t, "run", "--bundle", f.path("bundle"), "abc")); code != 1 || !strings.Contains(f.read(t, "output"), "run cannot restore") {
		t.Errorf("it ends with %d: %s", code, f.read(t, "output"))
	}
	if _, err := f.place.Ticket(); err != nil {
		t.Errorf("the ticket is used: %v", err)
	}
}

// A restore that is interrupted leaves nothing, whichever process is told to stop or killed:
// the CRI runtime would not know of what is left.
func TestARestoreThatIsInterruptedLeavesNothing(t *testing.T) {
	worker := func(t *testing.T, cmd *exec.Cmd) int { return findWorker(t, cmd.Process.Pid) }
	wrapper := func(_ *testing.T, cmd *exec.Cmd) int { return cmd.Process.Pid }
	parent := func(_ *testing.T, cmd *exec.Cmd) int { return cmd.Process.Pid }
	tests := map[string]struct {
		victim   func(*testing.T, *exec.Cmd) int
		signal   syscall.Signal
		orphaned bool // whether the wrapper has a parent that ends
	}{
		"the wrapper is told to stop": {wrapper, unix.SIGTERM, false},
		"the wrapper is killed":       {wrapper, unix.SIGKILL, false},
		"the worker is told to stop":  {worker, unix.SIGTERM, false},
		"the worker is killed":        {worker, unix.SIGKILL, false},
		"the CRI runtime is killed":   {parent, unix.SIGKILL, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.stage(t)
			f.write(t, "hang", "")
			cmd := f.create(t)
			if tt.orphaned {
				cmd.Args = append([]string{"sh", "-c", `"$@" & wait`, "sh"}, append([]string{f.path(calledAs)}, cmd.Args[1:]...)...)
				cmd.Path = "/bin/sh"
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer f.killContainer(t)
			defer func() {
				if err := mounts.UnmountBelow(f.dir); err != nil {
					t.Error(err)
				}
			}()
			eventually(t, "the runtime restores", func() bool { return exists(f.path("hangs")) })
			if err := unix.Kill(tt.victim(t, cmd), tt.signal); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err == nil {
				t.Error("the restore is said to have succeeded")
			}
			eventually(t, "there is an outcome", func() bool { _, err := f.place.Outcome(); return err == nil })
			f.checkNothingLeft(t)
			f.checkRuntimeCalls(t, []string{"restore", "delete"})
			if outcome, err := f.place.Outcome(); err != nil || !outcome.Interrupted || outcome.Incompatible {
				t.Errorf("the outcome is %+v, %v", outcome, err)
			}
		})
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func TestArgumentsOfARestore(t *testing.T) {
	place := newPlace(t)
	paths := "--image-path " + place.DataDir() + "/checkpoint --work-path " + place.Dir() + "/" + workDir + " abc"
	tests := map[string]struct{ args, spec, want string }{
		"as little as possible": {"create abc", `{}`, "restore --detach --file-locks --bundle . " + paths},
		"options of the CRI runtime": {
			"--root /r --systemd-cgroup create -b /b --pid-file /p --console-socket /c --no-pivot abc", `{}`,
			"--root /r --systemd-cgroup restore --detach --file-locks --bundle /b --pid-file /p --console-socket /c --no-pivot " + paths,
		},
		"labels of SELinux": {
			"create abc", `{"process": {"selinuxLabel": "a:b"}, "linux": {"mountLabel": "c:d"}}`,
			"restore --detach --file-locks --bundle . --lsm-profile selinux:a:b --lsm-mount-context c:d " + paths,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := &wrapper{call: parse(strings.Fields(tt.args))}
			if got := strings.Join(w.restoreArgs(place, parseSpec(t, tt.spec)), " "); got != tt.want {
				t.Errorf("restoreArgs() = %q, want %q", got, tt.want)
			}
		})
	}
}

// findWorker finds the worker of a wrapper.
func findWorker(t *testing.T, parent int) int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name))) // The pattern has digits only.
		called, err := os.ReadFile(name)
		if p, ok := stat(pid); err == nil && ok && p.parent == parent && bytes.HasPrefix(called, []byte(workerName)) {
			return pid
		}
	}
	t.Fatalf("process %d has no worker", parent)
	return 0
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waiting until %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// The program starts with each container of a node.
func TestTheProgramImportsLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "../../cmd/holdfast-runtime").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/holdfast-io/holdfast/"
	allowed := []string{"golang.org/x/sys/unix", module + "internal/ephemeral", module + "internal/mounts", module + "internal/ticket", module + "internal/wrapper", module + "cmd/holdfast-runtime"}
	for name := range strings.FieldsSeq(string(out)) {
		if !slices.Contains(allowed, name) {
			t.Errorf("it imports %s", name)
		}
	}
}

// maxSize is how large the program may be, in bytes.
const maxSize = 8 << 20

func TestTheProgramIsSmall(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "holdfast-runtime")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "../../cmd/holdfast-runtime")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil || info.Size() > maxSize {
		t.Errorf("it has %d bytes, %v, want at most %d", info.Size(), err, maxSize)
	}
}
