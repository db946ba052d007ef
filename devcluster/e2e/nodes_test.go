package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/devcluster/internal/image"
)

// busybox is an image that every node has.
const busybox = "devcluster.local/busybox:1"

func TestTwoNodes(t *testing.T) {
	c := asRoot(t).up(t, "--nodes", "2")
	nodes := []string{c.name + "-n1", c.name + "-n2"}
	traces := c.trace(t)
	for i, node := range nodes {
		c.runPod(t, fmt.Sprintf("web%d", i+1), node, busybox, "sh", "-c",
			"echo hello from $(hostname); echo $(hostname) >/tmp/index.html; exec httpd -f -p 8080 -h /tmp")
	}
	t.Run("pods run on both nodes", func(t *testing.T) {
		for i, node := range nodes {
			if on := c.kubectl(t, "get", "pod", fmt.Sprintf("web%d", i+1), "-o", "jsonpath={.spec.nodeName} {.status.phase}"); on != node+" Running" {
				t.Errorf("pod web%d: %s, want it running on %s", i+1, on, node)
			}
		}
	})
	t.Run("pods are in the control group of their node", func(t *testing.T) {
		groups, err := c.shell(t, nodes[0], "cat /proc/$(pgrep -xo httpd)/cgroup")
		must(t, err)
		if !strings.Contains(groups, "/devcluster-"+c.name+"-") || !strings.Contains(groups, "/"+nodes[0]+"/kubepods/") {
			t.Errorf("the pod's groups are %q, want them below those of its node: else they outlive it", groups)
		}
	})
	t.Run("nodes share a folder", func(t *testing.T) {
		_, err := c.shell(t, nodes[0], "echo from the first >/var/lib/holdfast/shared/file")
		must(t, err)
		if said, err := c.shell(t, nodes[1], "cat /var/lib/holdfast/shared/file"); err != nil || said != "from the first\n" {
			t.Errorf("the second node reads %q, %v", said, err)
		}
	})
	t.Run("logs come from a pod", func(t *testing.T) {
		if said := c.kubectl(t, "logs", "web2"); said != "hello from web2\n" {
			t.Errorf("the log is %q", said)
		}
	})
	t.Run("a command runs in a pod", func(t *testing.T) {
		if said := c.kubectl(t, "exec", "web2", "--", "cat", "/tmp/index.html"); said != "web2\n" {
			t.Errorf("the command says %q", said)
		}
	})
	t.Run("a pod's port can be reached from here", func(t *testing.T) { portForward(t, c) })
	t.Run("pods reach each other across nodes", func(t *testing.T) {
		address := c.kubectl(t, "get", "pod", "web1", "-o", "jsonpath={.status.podIP}")
		if said := c.kubectl(t, "exec", "web2", "--", "wget", "-qO-", "http://"+address+":8080/"); said != "web1\n" {
			t.Errorf("web1 says %q to web2", said)
		}
	})
	t.Run("an image of a local program runs and reaches the API by its service", func(t *testing.T) { loadImage(t, c, nodes) })
	t.Run("a program of the nodes' Debian comes with its libraries", func(t *testing.T) {
		_, err := c.run(t, "load", "e2e.example/mkfs:1", "--name", c.name, "--file", "/hosts=/etc/hosts", "--program", "/usr/sbin/mkfs.ext4")
		must(t, err)
		c.kubectl(t, "run", "mkfs", "--image=e2e.example/mkfs:1", "--restart=Never", "--command", "--", "/usr/sbin/mkfs.ext4", "-V")
		c.kubectl(t, "wait", "pod/mkfs", "--for=jsonpath={.status.phase}=Succeeded", "--timeout="+patience.String())
	})
	t.Run("the kubelet makes a checkpoint of a container", func(t *testing.T) { checkpoint(t, c, nodes[1]) })
	t.Run("the OCI runtime can be replaced", func(t *testing.T) { replaceRuntime(t, c, nodes[1]) })
	t.Run("a kubelet that is killed comes back", func(t *testing.T) { killKubelet(t, c, nodes[0]) })
	t.Run("a node that does not exist has no shell", func(t *testing.T) {
		if _, err := c.shell(t, c.name+"-n3", "true"); err == nil || !strings.Contains(err.Error(), "has no node "+c.name+"-n3") {
			t.Errorf("got %v, want an error that names the node", err)
		}
	})
	t.Run("the end of a node is told and the cluster goes on", func(t *testing.T) {
		_, err := output(c.command(t.Context(), "exec", "--name", c.name, "--", "kill", "-9", fmt.Sprint(c.find(t, "node-init"))))
		must(t, err)
		eventually(t, "it is told", func() error {
			if said := c.said.String(); !strings.Contains(said, "ended: signal: killed") {
				return errors.New(said)
			}
			return nil
		})
		c.kubectl(t, "get", "nodes")
	})
	t.Run("down leaves nothing", func(t *testing.T) {
		loops(t, c, nodes[1])
		_, err := c.run(t, "down", "--name", c.name)
		must(t, err, traces.processes(t), traces.rest(t), c.await(t))
	})
}

func (c *cluster) runPod(t *testing.T, name, node, image string, command ...string) {
	t.Helper()
	place := fmt.Sprintf(`{"spec":{"nodeName":%q}}`, node)
	c.kubectl(t, append([]string{"run", name, "--image=" + image, "--overrides=" + place, "--command", "--"}, command...)...)
	c.kubectl(t, "wait", "pod/"+name, "--for=condition=Ready", "--timeout="+patience.String())
}

// shell runs a command inside a node.
func (c *cluster) shell(t *testing.T, node, script string) (string, error) {
	t.Helper()
	return c.run(t, "shell", "--name", c.name, node, "--", "sh", "-ec", script)
}

func portForward(t *testing.T, c *cluster) {
	cmd := c.command(t.Context(), "kubectl", "--kubeconfig", c.kubeconfig, "port-forward", "pod/web2", ":8080")
	stdout, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	defer func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // It was killed: that is the only news in its exit status.
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n') // Forwarding from 127.0.0.1:port -> 8080
	must(t, err)
	answer, err := http.Get("http://" + strings.Fields(line)[2])
	must(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	must(t, err)
	if string(body) != "web2\n" {
		t.Errorf("the pod says %q", body)
	}
}

// loadImage makes an image of this program, which is kubectl under that name:
// in a pod it finds the API at the address of the service.
func loadImage(t *testing.T, c *cluster, nodes []string) {
	_, err := c.run(t, "load", "e2e.example/kubectl:1", "--name", c.name, "--file", "/kubectl="+c.binary)
	must(t, err)
	for i, node := range nodes {
		name := fmt.Sprintf("kubectl%d", i+1)
		place := fmt.Sprintf(`{"spec":{"nodeName":%q}}`, node)
		c.kubectl(t, "run", name, "--image=e2e.example/kubectl:1", "--restart=Never", "--overrides="+place, "--", "get", "--raw", "/version")
		c.kubectl(t, "wait", "pod/"+name, "--for=jsonpath={.status.phase}=Succeeded", "--timeout="+patience.String())
		if said := c.kubectl(t, "logs", name); !strings.Contains(said, `"gitVersion": "`+version+`"`) {
			t.Errorf("in the pod on %s the API server says %q", node, said)
		}
	}
	loadArchive(t, c, nodes)
}

// loadArchive loads an image that is in a file.
func loadArchive(t *testing.T, c *cluster, nodes []string) {
	t.Helper()
	const name = "e2e.example/archive:1"
	archive := filepath.Join(t.TempDir(), "image.tar")
	must(t, image.Write(image.Spec{Name: name, Files: map[string]string{"/hosts": "/etc/hosts"}, Entrypoint: []string{"/hosts"}}, archive))
	_, err := c.run(t, "load", "--name", c.name, "--archive", archive)
	must(t, err)
	for _, node := range nodes {
		images, err := c.shell(t, node, "ctr --namespace k8s.io images ls -q")
		must(t, err)
		if !strings.Contains(images, name) {
			t.Errorf("node %s does not have image %s: %s", node, name, images)
		}
	}
}

// checkpoint asks the kubelet for one, through the API server, and looks for
// the archive. An error answer is an error of kubectl.
func checkpoint(t *testing.T, c *cluster, node string) {
	answer := c.kubectl(t, "create", "--raw", "/api/v1/nodes/"+node+"/proxy/checkpoint/default/web2/web2", "-f", "/dev/null")
	var made struct{ Items []string }
	must(t, json.Unmarshal([]byte(answer), &made))
	if len(made.Items) != 1 {
		t.Fatalf("the kubelet answers %q, want one archive", answer)
	}
	_, err := c.shell(t, node, "tar -tf "+made.Items[0]+" | grep '^checkpoint/'")
	must(t, err)
}

// replaceRuntime puts a program in the place of the OCI runtime. It is called for the
// containers that start from then on, and their specifications have the pod's annotations
// about restores.
func replaceRuntime(t *testing.T, c *cluster, node string) {
	_, err := c.shell(t, node, `
		cat >/usr/local/sbin/other-runtime <<-'END'
			#!/bin/sh
			case " $* " in *" create "*) grep -o '"checkpoint.example.com/[^,}]*' config.json >>/run/annotations;; esac
			exec runc "$@"
		END
		chmod +x /usr/local/sbin/other-runtime
		ln -s other-runtime /usr/local/sbin/new
		mv /usr/local/sbin/new /usr/local/sbin/oci-runtime`)
	must(t, err)
	place := fmt.Sprintf(`{"spec":{"nodeName":%q}}`, node)
	c.kubectl(t, "run", "annotated", "--image="+busybox, "--overrides="+place, "--annotations=checkpoint.example.com/restore-from=x",
		"--command", "--", "sleep", "1000")
	c.kubectl(t, "wait", "pod/annotated", "--for=condition=Ready", "--timeout="+patience.String())
	said, err := c.shell(t, node, "cat /run/annotations; ln -sf ../../sbin/runc /usr/local/sbin/oci-runtime")
	must(t, err)
	const want = `"checkpoint.example.com/restore-from":"x"` + "\n"
	if said != want+want {
		t.Errorf("the specifications of the pause container and of the container say %q, want %q in both", said, want)
	}
}

func killKubelet(t *testing.T, c *cluster, node string) {
	const pid = "pidof -s kubelet || true"
	before, err := c.shell(t, node, pid)
	must(t, err)
	_, err = c.shell(t, node, "kill -9 "+before)
	must(t, err)
	eventually(t, "another kubelet runs", func() error {
		now, err := c.shell(t, node, pid)
		if err == nil && (now == "" || now == before) {
			return errors.New("there is none")
		}
		return err
	})
	c.runPod(t, "after", node, busybox, "sleep", "1000")
}

// loops attaches loop devices inside a node: one idle, one mounted, one over a
// file of the filesystem that is mounted, and one over a file that nodes share.
func loops(t *testing.T, c *cluster, node string) {
	_, err := c.shell(t, node, strings.ReplaceAll(`
		cd /var/lib
		truncate -s 64M NAME-idle.img NAME-mounted.img
		losetup -f NAME-idle.img
		outer=$(losetup -f --show NAME-mounted.img)
		mkfs.ext4 -q $outer
		mkdir NAME-mnt
		mount $outer NAME-mnt
		truncate -s 8M NAME-mnt/NAME-nested.img
		losetup -f NAME-mnt/NAME-nested.img
		truncate -s 8M holdfast/shared/NAME-shared.img
		losetup -f holdfast/shared/NAME-shared.img`, "NAME", c.name))
	must(t, err)
}

// kill -9 leaves what the kernel keeps; the next down, of whatever name, removes it.
func TestKillNine(t *testing.T) {
	c := aside(t, asRoot(t)).up(t, "--nodes", "1")
	node := c.name + "-n1"
	c.runPod(t, "busy", node, busybox, "sleep", "1000")
	loops(t, c, node)
	traces := c.trace(t)
	if n := strings.Count(fmt.Sprint(traces.attached(t)), "is attached"); n != 4 {
		t.Fatalf("%d loop devices are attached, want 4: %v", n, traces.attached(t))
	}
	must(t, c.process.Process.Kill())
	eventually(t, "no process is left", func() error { return traces.processes(t) })
	if traces.attached(t) == nil || traces.groups(t) == nil {
		t.Errorf("the kernel has removed loop devices or control groups by itself: this test does not show what it should: %v", traces.rest(t))
	}
	_, err := c.run(t, "down", "--name", newName())
	must(t, err, traces.processes(t), traces.rest(t))
}

// aside is the program with a home of its own, so that no other devcluster of
// this machine cleans up first. Only the Debian tree, which takes long to make,
// is that of the user's own home.
func aside(t *testing.T, u tool) tool {
	t.Helper()
	trees := filepath.Join(filepath.Dir(filepath.Dir(u.folder(t, "any"))), "trees")
	home, err := os.MkdirTemp(filepath.Dir(filepath.Dir(trees)), "devcluster-e2e-") // Not in /tmp, which may be too small.
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(home) })
	must(t, os.MkdirAll(trees, 0o755), os.Symlink(trees, filepath.Join(home, "trees")))
	u.home = home
	return u
}
