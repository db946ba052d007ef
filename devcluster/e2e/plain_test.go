package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// version is what the program is made from and says it is.
const version = "v1.36.3"

func TestAClusterWithoutNodes(t *testing.T) {
	c := asNobody(t).up(t)
	traces := c.trace(t)
	t.Run("server and kubectl say the version", func(t *testing.T) {
		said := c.kubectl(t, "version")
		for _, want := range []string{"Client Version: " + version, "Server Version: " + version} {
			if !strings.Contains(said, want) {
				t.Errorf("kubectl version says %q, want %q in it", said, want)
			}
		}
	})
	t.Run("an account without rights is refused", func(t *testing.T) {
		_, err := c.tryKubectl(t, "get", "secrets", "--as=system:serviceaccount:default:default")
		if err == nil || !strings.Contains(err.Error(), "Forbidden") {
			t.Errorf("reading secrets without the right to: %v, want Forbidden", err)
		}
	})
	t.Run("nobody is the administrator without the kubeconfig", func(t *testing.T) {
		info, err := os.Stat(c.kubeconfig)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("the kubeconfig's mode is %s, want it to be for its owner only", info.Mode())
		}
	})
	t.Run("etcd answers nobody without a certificate", func(t *testing.T) { etcdRefuses(t, c) })
	t.Run("kubeconfig prints where it is", func(t *testing.T) {
		out, err := c.run(t, "kubeconfig", "--name", c.name)
		must(t, err)
		if strings.TrimSpace(out) != c.kubeconfig {
			t.Errorf("kubeconfig says %q, up said %q", out, c.kubeconfig)
		}
	})
	t.Run("a name that is taken is refused", func(t *testing.T) {
		_, err := c.run(t, "up", "--name", c.name)
		if err == nil || !strings.Contains(err.Error(), "devcluster down --name "+c.name) {
			t.Errorf("a second up of the same name: %v, want it to say how to stop the first", err)
		}
	})
	t.Run("exec uses it", func(t *testing.T) { execUses(t, c) })
	t.Run("exec does not take it for one with nodes", func(t *testing.T) {
		_, err := c.run(t, "exec", "--name", c.name, "--nodes", "1", "--", "true")
		if err == nil || !strings.Contains(err.Error(), "0 nodes") {
			t.Errorf("asking for a node: %v, want an error that tells how many there are", err)
		}
	})
	t.Run("Ctrl-C reaches the command under exec once", func(t *testing.T) { ctrlC(t, c) })
	t.Run("a second cluster runs beside it", func(t *testing.T) { beside(t, c) })
	t.Run("down stops it and leaves nothing", func(t *testing.T) {
		_, err := c.run(t, "down", "--name", c.name)
		must(t, err, traces.processes(t), traces.rest(t), c.await(t))
	})
}

// etcdRefuses asks etcd as any user of the machine can, who would get past RBAC there.
func etcdRefuses(t *testing.T, c *cluster) {
	const flag = "--listen-client-urls="
	for _, p := range processes(t) {
		if !strings.HasPrefix(p.args, "etcd ") || !c.owns(p) {
			continue
		}
		_, after, _ := strings.Cut(p.args, flag)
		url, _, _ := strings.Cut(after, " ")
		client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		answer, err := client.Get(url + "/version")
		if err == nil {
			answer.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("asking etcd at %q without a certificate: %v, want that it requires one", url, err)
		}
		return
	}
	t.Error("no etcd found")
}

func execUses(t *testing.T, c *cluster) {
	out, err := c.run(t, "exec", "--name", c.name, "--", "sh", "-c", `echo "$KUBECONFIG $DEVCLUSTER_NAME" && command -v kubectl && exit 42`)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("exec ends with %v, want the command's code 42", err)
	}
	want := c.kubeconfig + " " + c.name + "\n" + filepath.Join(filepath.Dir(c.kubeconfig), "bin", "kubectl") + "\n"
	if out != want {
		t.Errorf("the command sees %q, want %q", out, want)
	}
}

// beside starts another cluster, which has one thing that the first has not,
// and lets it end by itself when standard input does.
func beside(t *testing.T, first *cluster) {
	second := first.begin(t, "--until-eof")
	if err := second.await(t); err == nil || !strings.Contains(second.said.String(), "standard input has ended") {
		t.Fatalf("up with no standard input ended: %v: %s", err, second.said)
	}
	out, err := first.run(t, "exec", "--name", newName(), "--", "kubectl", "create", "namespace", "only-here")
	must(t, err)
	if !strings.Contains(out, "created") {
		t.Errorf("kubectl in the second cluster says %q", out)
	}
	if _, err := first.tryKubectl(t, "get", "namespace", "only-here"); err == nil {
		t.Error("what was made in one cluster is in the other")
	}
}

func TestExec(t *testing.T) {
	u := asNobody(t)
	name := newName()
	started := filepath.Join(u.home, "started")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	said := &recorder{}
	cmd := u.command(ctx, "exec", "--name", name, "--", "sh", "-c", `trap "exit 7" TERM; touch "$0"; while :; do sleep 0.1; done`, started)
	cmd.Stdout, cmd.Stderr = said, said
	must(t, cmd.Start())
	eventually(t, "the command runs", func() error {
		_, err := os.Stat(started)
		return err
	})
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exec, sent SIGTERM, ends with %v, want the command's answer to it, 7: %s", err, said)
	}
	left, err := filepath.Glob(filepath.Join(u.home, "clusters", "*"))
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %s", left)
	}
}

func TestAComponentThatDies(t *testing.T) {
	c := asNobody(t).up(t)
	traces := c.trace(t)
	must(t, syscall.Kill(c.find(t, "kube-apiserver"), syscall.SIGKILL))
	if err := c.await(t); err == nil {
		t.Error("up ends without an error")
	}
	said := c.said.String()
	if !strings.Contains(said, "kube-apiserver ended: signal: killed") {
		t.Errorf("up says %q, want the component's name and how it ended", said)
	}
	_, logs, _ := strings.Cut(said, "the logs are in ")
	if _, err := os.Stat(filepath.Join(strings.TrimSpace(logs), "kube-apiserver.log")); err != nil {
		t.Errorf("up says %q, want it to tell where the log is: %v", said, err)
	}
	must(t, traces.processes(t), traces.rest(t))
	_, err := c.run(t, "down", "--name", c.name)
	must(t, err)
	if _, err := os.Stat(strings.TrimSpace(logs)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the logs are still there after down: %v", err)
	}
}

// A process that is stopped does not notice that its parent is gone.
func TestAStoppedComponentOfADeadClusterIsEnded(t *testing.T) {
	c := asNobody(t).up(t)
	traces := c.trace(t)
	must(t, syscall.Kill(c.find(t, "etcd"), syscall.SIGSTOP))
	must(t, c.process.Process.Kill())
	_, err := c.run(t, "down", "--name", c.name)
	must(t, err, traces.processes(t), traces.rest(t))
}

func TestRefusals(t *testing.T) {
	u := asNobody(t)
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"a name with capitals":             {[]string{"up", "--name", "Dev"}, "lower-case"},
		"a name that leads elsewhere":      {[]string{"up", "--name", "../x"}, "lower-case"},
		"no name":                          {[]string{"down", "--name", ""}, "lower-case"},
		"too many nodes":                   {[]string{"up", "--nodes", "15"}, "between 0 and 14"},
		"nodes without root":               {[]string{"up", "--name", newName(), "--nodes", "1"}, "nodes cannot be started here: namespaces and mounts need root"},
		"exec without a command":           {[]string{"exec"}, "requires at least 1 arg"},
		"the kubeconfig of no cluster":     {[]string{"kubeconfig", "--name", newName()}, "is not running; start it by: devcluster up"},
		"a shell in the node of nothing":   {[]string{"shell", "--name", newName(), "n1"}, "is not running"},
		"an image for the nodes of nobody": {[]string{"load", "x.example/image:1", "--name", newName()}, "is not running"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := u.run(t, tt.args...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	t.Run("and down of no cluster is no error", func(t *testing.T) {
		_, err := u.run(t, "down", "--name", newName())
		must(t, err)
		left, err := filepath.Glob(filepath.Join(u.home, "*", "*"))
		must(t, err)
		if len(left) > 0 {
			t.Errorf("left: %s", left)
		}
	})
}
