package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	bootedAnswer     = "booted"
	containerdSocket = "/run/containerd/containerd.sock"
	path             = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// patience is how long the container runtime may take to answer.
	patience = 60 * time.Second
)

// RunInit is a node's first process. It reads a Spec from standard input, makes
// the node's root, starts its programs, answers one line ("booted" or what went
// wrong) on standard output, and from then on restarts what ends and collects
// what was orphaned.
func RunInit([]string) int {
	var spec Spec
	if err := json.NewDecoder(os.Stdin).Decode(&spec); err != nil {
		return 1 // The parent ended before it said what to do.
	}
	s := newSupervisor()
	if err := boot(s, spec); err != nil {
		fmt.Println(strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	fmt.Println(bootedAnswer)
	select {}
}

func boot(s *supervisor, spec Spec) error {
	if err := enterRoot(spec); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(spec.Name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return fmt.Errorf("letting packets through to pods: %w", err)
	}
	s.keep("containerd", "containerd", "--config", FilesAt+"/containerd.toml")
	if err := waitFor(containerdSocket); err != nil {
		return fmt.Errorf("%w: %s", err, lastLine("/var/log/containerd.log"))
	}
	if err := importImages(s); err != nil {
		return err
	}
	s.keep("kubelet", "kubelet", "--config="+FilesAt+"/kubelet.yaml", "--kubeconfig="+FilesAt+"/kubelet.kubeconfig",
		"--hostname-override="+spec.Name, "--node-ip="+spec.Address.String())
	s.keep("kube-proxy", "kube-proxy", "--kubeconfig="+FilesAt+"/kube-proxy.kubeconfig", "--hostname-override="+spec.Name,
		"--proxy-mode=iptables", "--conntrack-max-per-core=0",
		"--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
	return nil
}

// importImages loads every image file of the configuration folder.
func importImages(s *supervisor) error {
	images, err := filepath.Glob(FilesAt + "/*.tar")
	if err != nil {
		return fmt.Errorf("listing images: %w", err)
	}
	for _, image := range images {
		if err := s.run("ctr", "--namespace", "k8s.io", "images", "import", "--local", image); err != nil {
			return fmt.Errorf("importing %s: %w: %s", filepath.Base(image), err, lastLine("/var/log/ctr.log"))
		}
	}
	return nil
}

// waitFor returns when something listens on a unix socket.
func waitFor(socket string) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(pulse) {
		if dial(socket) == nil {
			return nil
		}
	}
	return fmt.Errorf("nothing answers on %s", socket)
}

func dial(socket string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
}

// lastLine is the end of a log: most programs say there why they gave up.
func lastLine(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "no log: " + err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
