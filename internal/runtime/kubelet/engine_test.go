package kubelet

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/runtimetest"
)

// checkpoint calls Checkpoint for one container.
func checkpoint(t *testing.T, engine *Engine, c runtime.Container) (runtime.Dump, error) {
	t.Helper()
	dumps, err := engine.Checkpoint(t.Context(), "checkpoint-1", []runtime.Container{c}, runtime.Options{})
	if err != nil {
		return nil, err
	}
	return dumps[0], nil
}

func wantClean(t *testing.T, n *fakeNode, c runtime.Container) {
	t.Helper()
	if n.IsFrozen(c) {
		t.Error("the container is left frozen")
	}
	if left := n.Left(); len(left) > 0 {
		t.Errorf("left on disk: %q", left)
	}
}

func TestAnswersOfTheKubelet(t *testing.T) {
	t.Parallel()
	failed := "checkpointing of default/web/main failed (rpc error: code = Unknown desc = "
	tests := map[string]struct {
		status int
		body   string
		want   runtime.Reason
		advice string
	}{
		"no token, or a wrong one":                 {401, "Unauthorized", runtime.KubeletUnauthorized, "audience"},
		"no right":                                 {403, "Forbidden (user=x, verb=create, resource=nodes, subresource(s)=[checkpoint])", runtime.KubeletUnauthorized, `resources ["nodes/checkpoint"]`},
		"the pod is gone":                          {404, "pod does not exist\n", runtime.PodGone, "does not know the pod"},
		"the pod has no such container":            {404, "container main does not exist", runtime.ContainerUnknown, "no such container"},
		"the feature gate is off":                  {404, "404 page not found", runtime.EndpointMissing, "ContainerCheckpoint"},
		"no debugging handlers":                    {405, "Debug endpoints are disabled.", runtime.EndpointMissing, "enableDebuggingHandlers"},
		"CRIU is missing":                          {500, failed + "criu binary not found)", runtime.RuntimeNotReady, "install CRIU"},
		"CRIU is switched off":                     {500, failed + "criu support is disabled)", runtime.RuntimeNotReady, "install CRIU"},
		"CRI-O without CRIU":                       {500, failed + "checkpoint/restore support not available)", runtime.RuntimeNotReady, "install CRIU"},
		"CRIU is too old":                          {500, failed + "requires at least CRIU 31600)", runtime.CRIUTooOld, "newer CRIU"},
		"the runtime has no checkpoint":            {500, "rpc error: code = Unimplemented desc = x", runtime.RuntimeUnsupported, "engine runc"},
		"the runtime is older":                     {500, "unknown method CheckpointContainer", runtime.RuntimeUnsupported, "engine runc"},
		"the container has ended":                  {500, failed + "only CONTAINER_RUNNING containers can be checkpointed)", runtime.ContainerNotRunning, "running"},
		"the container does not run":               {500, failed + "container x is not running)", runtime.ContainerNotRunning, "running"},
		"the deadline has passed":                  {500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", runtime.Timeout, "longer timeout"},
		"the disk is full":                         {500, failed + "write x: no space left on device)", runtime.InsufficientNodeDisk, "free space"},
		"an established TCP connection":            {500, failed + "Connected TCP socket, consider using --tcp-established)", runtime.EstablishedTCP, "TCP"},
		"a file lock":                              {500, failed + "Some file locks are hold by dumping tasks)", runtime.FileLocks, "runc.conf"},
		"an external unix socket":                  {500, failed + "External socket is used. Consider using --ext-unix-sk)", runtime.ExternalUnixSocket, "runc.conf"},
		"io_uring":                                 {500, failed + "anon_inode:[io_uring])", runtime.IOUring, "io_uring"},
		"a large deleted file":                     {500, failed + "Can't dump ghost file)", runtime.GhostFileTooLarge, "ghost-limit"},
		"a shared mount":                           {500, failed + "Mount has unreachable sharing)", runtime.MountSharing, "CDI"},
		"anything else":                            {500, failed + "x)", runtime.DumpFailed, "desc = x"},
		"200 without a path":                       {200, `{"items":[]}`, runtime.DumpFailed, "want the path"},
		"200 with something else":                  {200, `hello`, runtime.DumpFailed, "want the path"},
		"an archive in another directory":          {200, `{"items":["/data/kubelet/checkpoints/checkpoint-web_default-main-2026-01-01T00:00:00Z.tar"]}`, runtime.DumpFailed, "directory of checkpoints"},
		"an archive of another container":          {200, `{"items":["/var/lib/kubelet/checkpoints/checkpoint-web_default-other-2026-01-01T00:00:00Z.tar"]}`, runtime.DumpFailed, "directory of checkpoints"},
		"an archive that existed before":           {200, `{"items":["/var/lib/kubelet/checkpoints/` + foreignArchive + `"]}`, runtime.DumpFailed, "existed before"},
		"a redirect to where tokens are collected": {307, "", runtime.DumpFailed, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			c := n.Start("web", "main")
			n.nextDump(c, func(_ context.Context, d *fakeDump) error {
				d.respond = func(w http.ResponseWriter) {
					w.Header().Set("Location", "https://"+n.options.Address+"/elsewhere")
					w.WriteHeader(test.status)
					_, _ = w.Write([]byte(test.body))
				}
				return errors.New("leaves the container frozen, and a part of the archive")
			})
			engine := n.engine()
			_, err := checkpoint(t, engine, c)
			if err == nil || runtime.ReasonOf(err) != test.want || !strings.Contains(err.Error(), test.advice) {
				t.Errorf("Checkpoint() = %s, %v, want %s with %q", runtime.ReasonOf(err), err, test.want, test.advice)
			}
			wantClean(t, n, c)
			if n.calls != 2 { // with that of the probe
				t.Errorf("there were %d calls, want one beside the probe: a repetition freezes the container again", n.calls)
			}
		})
	}
}

// What is frozen when the kubelet says so belongs to somebody else.
func TestBusyIsLeftAlone(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	n.nextDump(c, func(context.Context, *fakeDump) error { return errors.New("cannot pause a paused container") })
	_, err := checkpoint(t, n.engine(), c)
	if runtime.ReasonOf(err) != runtime.Busy || !runtime.IsRetryable(err) {
		t.Errorf("Checkpoint() = %v, want Busy, to be retried", err)
	}
	if !n.IsFrozen(c) || len(n.Left()) != 1 {
		t.Errorf("frozen: %t, left on disk: %q, want what the other one has made", n.IsFrozen(c), n.Left())
	}
	// From now on this is known before a call.
	if _, err = checkpoint(t, n.engine(), c); runtime.ReasonOf(err) != runtime.Busy || !strings.Contains(err.Error(), "paused") {
		t.Errorf("Checkpoint() = %v, want Busy", err)
	}
}

// A container that cannot be frozen now, as on a busy node, may be a moment later.
func TestCallIsRepeatedUntilTheContainerIsFrozen(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	unable := func(context.Context, *fakeDump) error {
		return errors.New("OCI runtime pause failed: unable to freeze")
	}
	n.nextDump(c, func(context.Context, *fakeDump) error {
		n.nextDump(c, unable) // The call after this one fails, too.
		return unable(nil, nil)
	})
	if _, err := checkpoint(t, n.engine(), c); err != nil {
		t.Fatal(err)
	}
	if n.calls != 4 { // with that of the probe
		t.Errorf("there were %d calls, want three beside the probe", n.calls)
	}
	if left := n.Left(); n.IsFrozen(c) || len(left) != 2 {
		t.Errorf("frozen: %t, left on disk: %q, want the archive and its record", n.IsFrozen(c), left)
	}
}

func TestContainerThatCannotBeFrozenIsLeftRunning(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	n.nextDump(c, func(context.Context, *fakeDump) error {
		return errors.New("timeout of 10s reached waiting for the cgroup to freeze")
	})
	engine := n.engine()
	engine.times.partlyFrozen = 0
	_, err := checkpoint(t, engine, c)
	if runtime.ReasonOf(err) != runtime.FreezeFailed || !runtime.IsRetryable(err) {
		t.Errorf("Checkpoint() = %s, %v, want FreezeFailed, to be retried", runtime.ReasonOf(err), err)
	}
	wantClean(t, n, c)
	if n.calls != 2 { // with that of the probe
		t.Errorf("there were %d calls, want one beside the probe: it was partly frozen for long enough", n.calls)
	}
}

func TestContainerLeftFrozenBySuccessIsThawed(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	n.nextDump(c, func(_ context.Context, d *fakeDump) error {
		d.after = func(context.Context) { n.write(group(c)+"/freezer.state", "FROZEN\n") }
		return nil
	})
	if _, err := checkpoint(t, n.engine(), c); err != nil {
		t.Fatal(err)
	}
	if n.IsFrozen(c) {
		t.Error("the container is left frozen")
	}
}

func TestReplacementIsNotLeftFrozen(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	var other runtime.Container
	n.nextDump(c, func(_ context.Context, d *fakeDump) error {
		other = n.replace(c)
		d.container = other
		d.after = func(context.Context) { n.write(group(other)+"/freezer.state", "FROZEN\n") }
		return nil
	})
	if _, err := checkpoint(t, n.engine(), c); runtime.ReasonOf(err) != runtime.SourcePodReplaced {
		t.Errorf("Checkpoint() = %v, want SourcePodReplaced", err)
	}
	wantClean(t, n, other)
}

func TestLostAnswer(t *testing.T) {
	t.Parallel()
	abort := func(context.Context) { panic(http.ErrAbortHandler) }
	tests := map[string]struct {
		inDump func(*fakeNode, runtime.Container, *fakeDump)
		ok     bool
	}{
		"the archive is complete":     {func(_ *fakeNode, _ runtime.Container, d *fakeDump) { d.after = abort }, true},
		"the archive is not complete": {func(_ *fakeNode, _ runtime.Container, _ *fakeDump) { abort(context.Background()) }, false},
		"the archive is of another pod": {func(n *fakeNode, c runtime.Container, d *fakeDump) {
			d.container = n.replace(c)
			d.after = abort
		}, false},
		"the container is left frozen, so its files may be newer than its memory": {func(n *fakeNode, c runtime.Container, d *fakeDump) {
			d.after = func(ctx context.Context) {
				n.write(group(c)+"/freezer.state", "FROZEN\n")
				abort(ctx)
			}
		}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			c := n.Start("web", "main")
			n.nextDump(c, func(_ context.Context, d *fakeDump) error {
				test.inDump(n, c, d)
				return nil
			})
			dump, err := checkpoint(t, n.engine(), c)
			if (err == nil) != test.ok {
				t.Fatalf("Checkpoint() = %v", err)
			}
			if err == nil {
				if dump.Report().Bytes == 0 {
					t.Error("the report has no size")
				}
				if err := dump.Discard(); err != nil {
					t.Error(err)
				}
			}
			wantClean(t, n, c)
		})
	}
}

// The archive of another call for the container is in the directory when this one fails.
func TestArchiveOfAnotherCallIsNotRemoved(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	names := []string{
		"var/lib/kubelet/checkpoints/checkpoint-web_default-main-" + time.Now().Add(20*time.Second).Format(time.RFC3339) + ".tar",
		"var/lib/kubelet/checkpoints/checkpoint-web_default-main-" + time.Now().Add(-time.Hour).Format(time.RFC3339) + ".tar",
		"var/lib/kubelet/checkpoints/checkpoint-web_default-main-x-" + time.Now().Format(time.RFC3339) + ".tar",
	}
	n.nextDump(c, func(context.Context, *fakeDump) error {
		for _, name := range names {
			n.write(name, "somebody else's")
		}
		return errors.New("the disk has a bad sector")
	})
	if _, err := checkpoint(t, n.engine(), c); err == nil {
		t.Fatal("Checkpoint() has succeeded")
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(n.root, name)); err != nil {
			t.Error(err)
		}
	}
	if left := n.Left(); len(left) != len(names) {
		t.Errorf("left on disk: %q", left)
	}
}

func TestFindArchive(t *testing.T) {
	t.Parallel()
	called := time.Date(2026, 11, 30, 12, 0, 0, 700_000_000, time.UTC)
	at := func(offset time.Duration) string {
		return "checkpoint-web_default-main-" + called.Add(offset).Format(time.RFC3339) + ".tar"
	}
	local := "checkpoint-web_default-main-" + called.In(time.FixedZone("", 2*60*60)).Format(time.RFC3339) + ".tar"
	for name, test := range map[string]struct {
		names, before []string
		want          string
	}{
		"one of the second of the call":                 {names: []string{at(0)}, want: at(0)},
		"one in the zone of the node":                   {names: []string{local}, want: local},
		"the first of two":                              {names: []string{at(time.Second), at(2 * time.Second)}, want: at(time.Second)},
		"one that existed before":                       {names: []string{at(0), at(time.Second)}, before: []string{at(0)}, want: at(time.Second)},
		"one of before the call":                        {names: []string{at(-time.Second)}},
		"one of long after the call":                    {names: []string{at(nameWindow + time.Second)}},
		"one of a container whose name starts the same": {names: []string{strings.Replace(at(0), "main-", "main-2-", 1)}},
		"one of another pod":                            {names: []string{strings.Replace(at(0), "web", "db", 1)}},
		"no archive":                                    {names: []string{at(0) + ".part"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			for _, name := range test.names {
				n.write("var/lib/kubelet/checkpoints/"+name, "")
			}
			r := &record{Called: called, Before: test.before, Report: runtime.Report{Container: container}}
			if got, err := n.engine().findArchive(r); got != test.want || err != nil {
				t.Errorf("findArchive() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestCauseIsFoundInCRIUsLog(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	c := n.Start("web", "main")
	const log = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/0123/criu-dump.log"
	n.write(log, "(00.01) io_uring is not probed\n"+
		"(00.02) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.\n")
	n.nextDump(c, func(context.Context, *fakeDump) error {
		return errors.New("criu failed: type NOTIFY errno 0 path= " + log + ": unknown")
	})
	_, err := checkpoint(t, n.engine(), c)
	if runtime.ReasonOf(err) != runtime.EstablishedTCP || !strings.Contains(err.Error(), "CRIU: Error (criu/sk-inet.c") {
		t.Errorf("Checkpoint() = %s, %v, want EstablishedTCP", runtime.ReasonOf(err), err)
	}
}

func TestSpace(t *testing.T) {
	t.Parallel()
	const expected = metadata + 8192
	tests := map[string]struct {
		temp, dir space
		want      string // "" if there is room
	}{
		"enough on one file system":     {space{4 * expected, 1}, space{4 * expected, 1}, ""},
		"too little on one file system": {space{4*expected - 1, 1}, space{4*expected - 1, 1}, "/var/lib/kubelet/checkpoints"},
		"enough on two":                 {space{expected, 1}, space{3 * expected, 2}, ""},
		"too little for CRIU":           {space{expected - 1, 1}, space{4 * expected, 2}, "/tmp"},
		"too little for the runtime":    {space{expected, 1}, space{3*expected - 1, 2}, "/var/lib/kubelet/checkpoints"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			c := n.Start("web", "main")
			engine := n.engine()
			engine.space = func(path string) (space, error) {
				if strings.HasSuffix(path, "/tmp") {
					return test.temp, nil
				}
				return test.dir, nil
			}
			_, err := checkpoint(t, engine, c)
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if runtime.ReasonOf(err) != runtime.InsufficientNodeDisk || !strings.Contains(err.Error(), test.want+" of the node") {
				t.Errorf("Checkpoint() = %v, want InsufficientNodeDisk of %s", err, test.want)
			}
			if n.calls != 1 {
				t.Errorf("there were %d calls, want the probe only", n.calls)
			}
			wantClean(t, n, c)
		})
	}
}

func TestTimeoutFor(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		size      int64
		permitted time.Duration
		want      time.Duration
	}{
		{"a small container gets the kubelet's own", 1 << 20, 0, 2 * time.Minute},
		{"a large one gets more", 40 << 30, 0, 60*time.Second + 2048*time.Second},
		{"what the user permits is kept, if it is less", 40 << 30, 10 * time.Second, 10 * time.Second},
		{"what the user permits is kept, if it is more", 1 << 20, time.Hour, time.Hour},
	} {
		if got := timeoutFor(test.size, test.permitted); got != test.want {
			t.Errorf("%s: timeoutFor() = %s, want %s", test.name, got, test.want)
		}
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	respond := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    runtime.Reason // "" if the engine works
	}{
		"the pod does not exist: all is well": {respond(404, "pod does not exist"), ""},
		"the route is missing":                {respond(404, "404 page not found"), runtime.EndpointMissing},
		"no right":                            {respond(403, "Forbidden"), runtime.KubeletUnauthorized},
		"no kubelet":                          {respond(200, `{"items":["x"]}`), runtime.EndpointMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newFakeNode(t)
			n.server.Config.Handler = test.handler
			n.options.Runtime = func() string { return "containerd://2.1.9" }
			capability, err := n.engine().Probe(t.Context())
			if test.want == "" {
				if err != nil || capability.Runtime != "containerd://2.1.9" || capability.OneInstant {
					t.Errorf("Probe() = %+v, %v", capability, err)
				}
			} else if err == nil || runtime.ReasonOf(err) != test.want {
				t.Errorf("Probe() = %v, want %s", err, test.want)
			}
		})
	}
}

func TestNoKubelet(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.server.Close()
	if _, err := n.engine().Probe(t.Context()); err == nil || !runtime.IsRetryable(err) {
		t.Errorf("Probe() = %v, want an error that is worth a retry", err)
	}
}

func TestTokenIsReadForEveryCall(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	engine := n.engine()
	n.write("token", "expired")
	if _, err := engine.Probe(t.Context()); runtime.ReasonOf(err) != runtime.KubeletUnauthorized {
		t.Errorf("Probe() = %v, want KubeletUnauthorized", err)
	}
	n.write("token", "secret-token")
	if _, err := engine.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.server.Certificate().Raw}))
	n.write("ca.crt", ca)
	other := httptest.NewUnstartedServer(n)
	other.TLS = &tls.Config{Certificates: []tls.Certificate{otherCertificate(t)}}
	other.StartTLS()
	defer other.Close()

	first := n.engine()
	if _, err := first.Probe(t.Context()); err != nil {
		t.Fatalf("the first certificate: %v", err)
	}
	if _, err := n.engine().Probe(t.Context()); err != nil {
		t.Errorf("the same certificate, after a restart: %v", err)
	}
	n.options.Address = other.Listener.Addr().String()
	before := n.calls
	_, err := n.engine().Probe(t.Context())
	if err == nil || runtime.IsRetryable(err) || !strings.Contains(err.Error(), "fingerprint") {
		t.Errorf("another certificate: %v, want an error with its fingerprint", err)
	}
	n.options.CAFile = filepath.Join(n.root, "ca.crt")
	if _, err := n.engine().Probe(t.Context()); err == nil || runtime.IsRetryable(err) {
		t.Errorf("another certificate, with a CA: %v, want an error", err)
	}
	if n.calls != before {
		t.Error("the token was sent to a server with another certificate")
	}
	n.options.Address = n.server.Listener.Addr().String()
	if _, err := n.engine().Probe(t.Context()); err != nil {
		t.Errorf("the certificate of the CA: %v", err)
	}
	n.options.Insecure = true
	if _, err := New(n.options); err == nil {
		t.Error("a CA and no verification are accepted together")
	}
	n.options.CAFile, n.options.Address = "", other.Listener.Addr().String()
	if _, err := n.engine().Probe(t.Context()); err != nil {
		t.Errorf("another certificate, without verification: %v", err)
	}
}

// A file system gives back what was read while the pass goes on.
func TestConsumedFilesGiveTheirSpaceBack(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.tar")
	archive := pack(t, complete(t, file("checkpoint/pages-1.img", strings.Repeat("x", 3*punchSize)))...)
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	n := newFakeNode(t)
	engine := n.engine()
	engine.options.Root, engine.options.CheckpointDir = "", filepath.Dir(path)
	r := &record{ID: "checkpoint-1", Archive: "x.tar", Complete: true, Report: runtime.Report{Container: container}}
	if err := engine.journal.write(r); err != nil {
		t.Fatal(err)
	}
	d := &dump{engine: engine, record: r}
	err := d.Files(t.Context(), true, func(f runtime.File) error {
		if f.Name != "checkpoint/pages-1.img" {
			return nil
		}
		before := blocks(t, path)
		buffer := make([]byte, 1<<20)
		for range 2 * punchSize / len(buffer) {
			if _, err := f.Read(buffer); err != nil {
				return err
			}
		}
		if after := blocks(t, path); before-after < punchSize {
			t.Errorf("of %d bytes, %d are left after %d were read", before, after, 2*punchSize)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left := blocks(t, path); left > 64<<10 {
		t.Errorf("%d bytes are left after the pass", left)
	}
}

var _ runtimetest.Node = (*fakeNode)(nil)
