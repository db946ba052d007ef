package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/freezer"
	"github.com/holdfast-io/holdfast/internal/runtime/kubelet"
	"github.com/holdfast-io/holdfast/test/cluster"
)

// kubeletEnv has the call that this test program makes instead of running tests.
const kubeletEnv = "HOLDFAST_TEST_KUBELET_CHECKPOINT"

type kubeletCall struct {
	Address, StateDir, TokenFile, Root, ID string
	Container                              runtime.Container
}

func (c kubeletCall) options() kubelet.Options {
	return kubelet.Options{Address: c.Address, StateDir: c.StateDir, TokenFile: c.TokenFile, Root: c.Root}
}

func init() {
	text := os.Getenv(kubeletEnv)
	if text == "" {
		return
	}
	var call kubeletCall
	err := json.Unmarshal([]byte(text), &call)
	if err == nil {
		var engine *kubelet.Engine
		if engine, err = kubelet.New(call.options()); err == nil {
			_, err = engine.Checkpoint(context.Background(), call.ID, []runtime.Container{call.Container}, runtime.Options{})
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A kubeletNode is a real node, and what the engine kubelet needs on it.
type kubeletNode struct {
	*node
	call    kubeletCall
	foreign []string // archives that others have made
}

func newKubeletNode(t testing.TB) *kubeletNode {
	t.Helper()
	n := &kubeletNode{node: newNode(t, nil)}
	host, err := n.Client.CoreV1().Nodes().Get(t.Context(), n.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range host.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			n.call.Address = net.JoinHostPort(address.Address, strconv.Itoa(int(host.Status.DaemonEndpoints.KubeletEndpoint.Port)))
		}
	}
	n.call.Root, n.call.StateDir = n.path("/"), t.TempDir()
	n.call.TokenFile = n.token(t, "agent", true)
	old := time.Now().Add(-time.Hour)
	name := filepath.Join(n.archiveDir(), "checkpoint-workload_"+n.Namespace+"-c0-"+old.Format(time.RFC3339)+".tar")
	if err := os.MkdirAll(n.archiveDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte("somebody else's"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.foreign = []string{name}
	t.Cleanup(func() {
		n.wantArchives(t)
		for _, name := range n.foreign {
			if err := os.Remove(name); err != nil {
				t.Error(err)
			}
		}
	})
	waitFor(t, "the kubelet permits nodes/checkpoint", func(ctx context.Context) (bool, error) {
		_, err := n.newEngine(t).Probe(ctx)
		return err == nil, nil
	})
	return n
}

func (n *kubeletNode) newEngine(t testing.TB) *kubelet.Engine {
	t.Helper()
	engine, err := kubelet.New(n.call.options())
	if err != nil {
		t.Fatal(err)
	}
	return engine
}

// token returns a file with the token of a service account that may create nodes/checkpoint
// of this node and nothing else, or nothing at all.
func (n *kubeletNode) token(t testing.TB, name string, may bool) string {
	t.Helper()
	accounts := n.Client.CoreV1().ServiceAccounts(n.Namespace)
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if may {
		n.bind(t, name)
	}
	request, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(request.Status.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (n *kubeletNode) bind(t testing.TB, account string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "checkpoint-" + n.Namespace}
	rbac := n.Client.RbacV1()
	t.Cleanup(func() {
		for _, err := range []error{
			rbac.ClusterRoles().Delete(context.WithoutCancel(t.Context()), meta.Name, metav1.DeleteOptions{}),
			rbac.ClusterRoleBindings().Delete(context.WithoutCancel(t.Context()), meta.Name, metav1.DeleteOptions{}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	if _, err := rbac.ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"nodes/checkpoint"}, ResourceNames: []string{n.name}, Verbs: []string{"create"},
	}}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rbac.ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: meta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: n.Namespace, Name: account}},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (n *kubeletNode) archiveDir() string { return n.path("/var/lib/kubelet/checkpoints") }

// archives returns the archives of this test's namespace: other tests may run on the node.
func (n *kubeletNode) archives(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(n.archiveDir(), "checkpoint-*_"+n.Namespace+"-*.tar"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// wantArchives checks that there are those of others, and no more.
func (n *kubeletNode) wantArchives(t testing.TB) {
	t.Helper()
	if got := n.archives(t); !slices.Equal(got, n.foreign) {
		t.Errorf("the archives are %q, want %q", got, n.foreign)
	}
}

func (n *kubeletNode) wantThawed(t testing.TB, c runtime.Container) {
	t.Helper()
	group, err := freezer.Paths{}.OfContainer(c.ID)
	if err != nil {
		t.Error(err)
		return
	}
	if state, err := group.State(); err != nil || state != freezer.Thawed {
		t.Errorf("container %s is %s, %v", c.Name, state, err)
	}
}

// counting is a program that counts.
var counting = []string{"sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; sleep 0.1; done"}

func (n *kubeletNode) waitCounts(t testing.TB, c runtime.Container) {
	t.Helper()
	count := func(ctx context.Context) int {
		text, err := n.Client.CoreV1().Pods(c.Namespace).GetLogs(c.Pod, &corev1.PodLogOptions{Container: c.Name}).DoRaw(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n")
	}
	before := count(t.Context())
	waitFor(t, "the container counts on", func(ctx context.Context) (bool, error) { return count(ctx) > before, nil })
}

func TestKubelet(t *testing.T) {
	t.Parallel()
	n := newKubeletNode(t)
	containers := n.run(t, "counter", cluster.BusyboxImage, counting, counting)
	c := containers[0]
	engine := n.newEngine(t)

	// What another program has made, which here is another agent with another directory.
	other := n.call
	other.StateDir = t.TempDir()
	theirs, err := kubelet.New(other.options())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := theirs.Checkpoint(t.Context(), "theirs", []runtime.Container{c}, runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	n.foreign = n.archives(t)

	dumps, err := engine.Checkpoint(t.Context(), "ours", []runtime.Container{c}, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n.wantThawed(t, c)
	n.waitCounts(t, c)
	r := dumps[0].Report()
	t.Logf("%d bytes, frozen for %s", r.Bytes, r.Frozen)
	if r.Container != c || !r.Exact || r.Frozen <= 0 || r.ImageName == "" || r.Step != runtime.Kubelet {
		t.Errorf("the report is %+v", r)
	}
	n.checkFiles(t, dumps[0], c)
	if err := dumps[0].Discard(); err != nil {
		t.Error(err)
	}
	n.wantArchives(t)

	_, err = engine.Checkpoint(t.Context(), "both", containers, runtime.Options{})
	if runtime.ReasonOf(err) != runtime.RuntimeUnsupported {
		t.Errorf("two containers: %v, want RuntimeUnsupported", err)
	}
	if found, err := n.newEngine(t).Recover(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("Recover() = %v, %v", found, err)
	}
}

// checkFiles reads all files of a dump, and looks for those of CRIU and containerd.
func (n *kubeletNode) checkFiles(t testing.TB, dump runtime.Dump, c runtime.Container) {
	t.Helper()
	var names []string
	var size int64
	spec := ""
	err := dump.Files(t.Context(), false, func(f runtime.File) error {
		content, err := io.ReadAll(f)
		names, size = append(names, f.Name), size+int64(len(content))
		if f.Name == "spec.dump" {
			spec = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if size != dump.Report().Bytes {
		t.Errorf("the files have %d bytes, the report says %d", size, dump.Report().Bytes)
	}
	for _, want := range []string{
		"config.dump", "spec.dump", "container.log", "rootfs-diff.tar", "checkpoint/inventory.img", "checkpoint/pstree.img",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing; there are %q", want, names)
		}
	}
	if !strings.Contains(spec, c.PodUID) {
		t.Error("spec.dump does not have the UID of the pod")
	}
}

// connected is a program that has a TCP connection to itself.
var connected = []string{"sh", "-c", "sleep 1000000 | nc -l -p 9999 & " +
	"until cat /proc/net/tcp /proc/net/tcp6 | grep -q :270F; do sleep 0.1; done; " +
	"(echo hello; sleep 1000000) | nc 127.0.0.1 9999"}

func TestKubeletRejections(t *testing.T) {
	t.Parallel()
	n := newKubeletNode(t)
	containers := n.run(t, "rejected", cluster.BusyboxImage, counting,
		connected)
	waitFor(t, "the container is connected to itself", func(ctx context.Context) (bool, error) {
		text, err := n.Client.CoreV1().Pods(n.Namespace).GetLogs("rejected", &corev1.PodLogOptions{Container: containers[1].Name}).DoRaw(ctx)
		return strings.Contains(string(text), "hello"), err
	})
	tests := []struct {
		name      string
		container runtime.Container
		want      runtime.Reason
	}{
		{"a container with a TCP connection", containers[1], runtime.EstablishedTCP},
		{"another pod of the same name", replaced(containers[0], "PodUID"), runtime.SourcePodReplaced},
		{"a pod that the kubelet does not know", replaced(containers[0], "Pod"), runtime.PodGone},
		{"a container that the pod does not have", replaced(containers[0], "Name"), runtime.ContainerUnknown},
		{"a container that has ended", replaced(containers[0], "ID"), runtime.ContainerNotRunning},
	}
	engine := n.newEngine(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := engine.Checkpoint(t.Context(), "rejected", []runtime.Container{test.container}, runtime.Options{})
			if err == nil || runtime.ReasonOf(err) != test.want {
				t.Errorf("Checkpoint() = %s, %v, want %s", runtime.ReasonOf(err), err, test.want)
			}
			t.Log(err)
			n.wantArchives(t)
			for _, c := range containers {
				n.wantThawed(t, c)
			}
		})
	}
	t.Run("an account without the right", func(t *testing.T) {
		call := n.call
		call.TokenFile = n.token(t, "nobody", false)
		engine, err := kubelet.New(call.options())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Probe(t.Context()); runtime.ReasonOf(err) != runtime.KubeletUnauthorized {
			t.Errorf("Probe() = %v, want KubeletUnauthorized", err)
		}
	})
}

// replaced returns a container with something else in a field.
func replaced(c runtime.Container, field string) runtime.Container {
	switch field {
	case "PodUID":
		c.PodUID = "00000000-0000-4000-8000-000000000000"
	case "Pod":
		c.Pod = "other"
	case "Name":
		c.Name = "other"
	case "ID":
		c.ID = strings.Repeat("0", 64)
	}
	return c
}

// The process is killed with SIGKILL: the container runs on, and nothing is left of the
// checkpoint unless it is complete.
func TestKubeletKill(t *testing.T) {
	t.Parallel()
	n := newKubeletNode(t)
	areas := []string{"a=private:128"}
	c := n.runWorkload(t, "workload", areas...)
	group, err := freezer.Paths{}.OfContainer(c.ID)
	if err != nil {
		t.Fatal(err)
	}
	journal := func(id string) string { return filepath.Join(n.call.StateDir, "journal", id+".json") }
	moments := []struct {
		name string
		seen func(id string) bool
	}{
		{"the call is recorded", func(id string) bool {
			_, err := os.Stat(journal(id))
			return err == nil
		}},
		{"the container is frozen", func(string) bool {
			state, err := group.State()
			return err == nil && state != freezer.Thawed
		}},
		{"the archive is being written", func(string) bool { return len(n.archives(t)) > len(n.foreign) }},
		{"the checkpoint is complete", func(id string) bool {
			text, err := os.ReadFile(journal(id))
			return err == nil && strings.Contains(string(text), `"Complete":true`)
		}},
	}
	for i, moment := range moments {
		t.Run(moment.name, func(t *testing.T) {
			id := "killed-" + strconv.Itoa(i)
			before := n.rounds(t, c)
			n.kill(t, id, c, func() bool { return moment.seen(id) })
			n.checkRecovered(t, id, c, i == len(moments)-1)
			n.waitRounds(t, c, areas, before, 2)
		})
	}
}

// kill kills a process that makes a checkpoint, as soon as something is seen.
func (n *kubeletNode) kill(t testing.TB, id string, c runtime.Container, seen func() bool) {
	t.Helper()
	call := n.call
	call.ID, call.Container = id, c
	text, err := json.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	process := exec.Command(os.Args[0])
	process.Env = append(os.Environ(), kubeletEnv+"="+string(text))
	process.Stderr = os.Stderr
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = process.Wait() // says that it was killed
	}()
	// Without a pause between two looks: a small container is frozen for a moment only.
	for deadline := time.Now().Add(timeout); !seen(); {
		if time.Now().After(deadline) {
			t.Error("the moment has not come")
			break
		}
	}
	if err := process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	<-ended
}

func (n *kubeletNode) checkRecovered(t testing.TB, id string, c runtime.Container, complete bool) {
	t.Helper()
	started := time.Now()
	found, err := n.newEngine(t).Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d complete after %s", len(found), time.Since(started))
	n.wantThawed(t, c)
	if complete && len(found[id]) != 1 {
		t.Errorf("Recover() = %v, want the complete checkpoint", found)
	}
	for _, dump := range found[id] {
		n.checkFiles(t, dump, c)
		if err := dump.Discard(); err != nil {
			t.Error(err)
		}
	}
	n.wantArchives(t)
}
