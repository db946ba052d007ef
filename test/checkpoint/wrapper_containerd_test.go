package checkpoint

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// oldContainerd is a version of containerd that the kubelet of the node does not speak to any
// more: its own client drives it.
const oldContainerd = "1.7.35"

// startOldContainerd starts it beside the node's own. %[1]s is its directory.
const startOldContainerd = `cd %[1]s
cat >config.toml <<END
version = 2
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/socket"
[ttrpc]
  address = "%[1]s/socket.ttrpc"
END
PATH=%[1]s:$PATH setsid ./containerd --config config.toml >log 2>&1 </dev/null &
echo $! >pid
tries=0
until ./ctr --address %[1]s/socket version >/dev/null 2>&1; do tries=$((tries+1)); [ $tries -lt 600 ] || { cat log >&2; exit 1; }; sleep 0.1; done
./ctr --address %[1]s/socket images import /etc/devcluster/busybox.tar >/dev/null`

// testOldContainerd: a container that containerd 1.7 has run is restored when it runs another
// one.
func (w *wrappedNode) testOldContainerd(t *testing.T) {
	dir := w.state + "-old"
	w.installOldContainerd(t, dir)
	start := func(name, options string) {
		w.Run(t, w.name, "sh", "-ec", fmt.Sprintf("cd %[1]s; setsid ./ctr --address %[1]s/socket run --runc-binary %[2]s %[3]s %[4]s %[5]s sh -c '%[6]s' >%[5]s.out 2>&1 </dev/null &",
			dir, runtimeAt, options, busybox, name, strings.ReplaceAll(counter[2], "'", `'\''`)))
	}
	counted := func(name string) (first, last int) {
		waitFor(t, name+" counts", func(ctx context.Context) (bool, error) {
			said, err := w.TryRun(ctx, w.name, "cat", dir+"/"+name+".out")
			if lines := strings.Fields(said); len(lines) > 2 {
				_, _ = fmt.Sscan(lines[0], &first) // What is no number is 0.
				_, _ = fmt.Sscan(lines[len(lines)-1], &last)
			}
			return last > 2, err
		})
		return first, last
	}
	start("first", "")
	counted("first")
	data := filepath.Join(w.dir, "uid-old", "main", "data")
	w.Run(t, w.name, "sh", "-ec", fmt.Sprintf(`mkdir -p %[1]s; cd %[2]s
		cp state/io.containerd.runtime.v2.task/default/first/config.json %[1]s/spec.dump
		mkfifo pipe; : >count; runc --root /run/containerd/runc/default checkpoint --image-path %[1]s/checkpoint --work-path %[2]s first
		tar -cf %[1]s/rootfs-diff.tar pipe count`, data, dir))
	_, last := counted("first")

	place, err := ticket.At(w.path(w.dir), "uid-old", "main")
	if err != nil {
		t.Fatal(err)
	}
	if err := place.Issue(ticket.Ticket{Request: "c-1", Decision: ticket.Restore, Expires: time.Now().Add(timeout)}); err != nil {
		t.Fatal(err)
	}
	start("second", "--annotation io.kubernetes.cri.container-type=container --annotation io.kubernetes.cri.sandbox-uid=uid-old"+
		" --annotation io.kubernetes.cri.container-name=main")
	if first, _ := counted("second"); first < last {
		t.Errorf("the container begins with %d, want it to go on from %d", first, last)
	}
	ctr := "cd " + dir + "; ./ctr --address " + dir + "/socket "
	if said := w.Run(t, w.name, "sh", "-ec", ctr+"task exec --exec-id look second echo inside"); said != "inside\n" {
		t.Errorf("exec says %q", said)
	}
	w.Run(t, w.name, "sh", "-ec", ctr+"task kill --signal SIGKILL second")
	waitFor(t, "containerd has no tasks", func(ctx context.Context) (bool, error) {
		tasks, err := w.TryRun(ctx, w.name, "sh", "-ec", ctr+"task ls -q")
		return tasks == "", err
	})
}

// installOldContainerd builds and starts it, until the test ends.
func (w *wrappedNode) installOldContainerd(t *testing.T, dir string) {
	t.Helper()
	programs := "bin/containerd-" + oldContainerd
	if out, err := exec.CommandContext(t.Context(), "make", "-C", "../..", programs).CombinedOutput(); err != nil {
		t.Fatalf("building containerd %s: %v: %s", oldContainerd, err, out)
	}
	if out, err := exec.CommandContext(t.Context(), "cp", "-r", filepath.Join("../..", programs), w.path(dir)).CombinedOutput(); err != nil {
		t.Fatalf("copying containerd %s: %v: %s", oldContainerd, err, out)
	}
	t.Cleanup(func() {
		if _, err := w.TryRun(context.Background(), w.name, "sh", "-c", "kill -9 $(cat "+dir+"/pid)"); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(w.path(dir)); err != nil {
			t.Error(err)
		}
	})
	w.Run(t, w.name, "sh", "-ec", fmt.Sprintf(startOldContainerd, dir))
}
