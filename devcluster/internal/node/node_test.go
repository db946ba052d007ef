package node

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

func spec(t *testing.T) Spec {
	t.Helper()
	s := Spec{
		Name: "dev-n1", State: filepath.Join(t.TempDir(), "dev-n1"), Cgroup: "/devcluster-dev-1/dev-n1",
		Address: netip.MustParseAddr("198.18.0.11"), Pods: netip.MustParsePrefix("198.18.1.0/24"),
	}
	if err := os.MkdirAll(s.Files(), 0o755); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestWriteConfig(t *testing.T) {
	s := spec(t)
	if err := WriteConfig(s); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(s.Files(), "kubelet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var kubelet struct {
		Kind, CgroupRoot, ContainerRuntimeEndpoint, TLSCertFile string
		CgroupsPerQOS                                           *bool
		Authentication                                          struct{ Anonymous struct{ Enabled bool } }
		Authorization                                           struct{ Mode string }
	}
	if err := yaml.Unmarshal(text, &kubelet); err != nil {
		t.Fatal(err)
	}
	got := map[string]any{
		"kind": kubelet.Kind, "group": kubelet.CgroupRoot, "runtime": kubelet.ContainerRuntimeEndpoint, "certificate": kubelet.TLSCertFile,
		"anybody may ask": kubelet.Authentication.Anonymous.Enabled, "who may": kubelet.Authorization.Mode,
		"a group for each pod": kubelet.CgroupsPerQOS == nil || *kubelet.CgroupsPerQOS,
	}
	want := map[string]any{
		"kind": "KubeletConfiguration", "group": s.Cgroup, "runtime": "unix://" + containerdSocket, "certificate": FilesAt + "/kubelet.crt",
		"anybody may ask": false, "who may": "Webhook", "a group for each pod": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	text, err = os.ReadFile(filepath.Join(s.Files(), "containerd.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"address = '" + containerdSocket + "'", "sandbox = '" + PauseImage + "'", "BinaryName = '" + RuntimeAt + "'"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("containerd.toml lacks %s", want)
		}
	}
	if strings.Contains(string(text), "<no value>") {
		t.Error("containerd.toml has a hole")
	}
}

func TestCNIConfig(t *testing.T) {
	var config struct {
		Plugins []struct {
			Type string
			IPAM struct {
				Ranges [][]struct{ Subnet string }
			}
		}
	}
	if err := json.Unmarshal([]byte(cniConfig(netip.MustParsePrefix("198.18.1.0/24"))), &config); err != nil {
		t.Fatal(err)
	}
	if got := config.Plugins[0].IPAM.Ranges[0][0].Subnet; got != "198.18.1.0/24" {
		t.Errorf("pods get addresses of %s", got)
	}
}

func TestCommand(t *testing.T) {
	s := spec(t)
	pid := filepath.Join(s.State, "pid")
	t.Run("a node that has not started is not found", func(t *testing.T) {
		if _, err := Command(s.State, "true"); err == nil || !strings.Contains(err.Error(), "finding node dev-n1") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a process that is not the node is not entered", func(t *testing.T) {
		if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Command(s.State, "true"); err == nil || !strings.Contains(err.Error(), "node dev-n1 has ended") {
			t.Errorf("got %v", err)
		}
	})
}

func TestDebianIn(t *testing.T) {
	tests := map[string]struct{ list, want string }{
		"the first archive is taken":             {"Debian http://a/debian/\nDebian http://b/debian/\n", "http://a/debian/"},
		"that of security updates is not whole":  {"Debian http://a/debian-security/\nDebian http://b/debian/\n", "http://b/debian/"},
		"other people's archives are not Debian": {"Ubuntu http://a/ubuntu/\n", ""},
		"without lists there is none":            {"", ""},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			if got, ok := debianIn(tt.list); got != tt.want || ok != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, ok, tt.want)
			}
		})
	}
}

func TestMirrorOfTheEnvironment(t *testing.T) {
	t.Setenv(mirrorVariable, "http://mirror.example/debian")
	if got, err := mirror(); got != "http://mirror.example/debian" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLastLine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	if got := lastLine(file); !strings.HasPrefix(got, "no log: ") {
		t.Errorf("without a file: %q", got)
	}
	if err := os.WriteFile(file, []byte("first\nlast\n\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := lastLine(file); got != "last" {
		t.Errorf("got %q, want the last line", got)
	}
}

// What the kernel answers is the same word for several reasons.
func TestOverlayHint(t *testing.T) {
	for errno, want := range map[error]string{
		unix.ENODEV: "CONFIG_OVERLAY_FS", unix.EINVAL: "set DEVCLUSTER_HOME", unix.ENOSPC: "",
	} {
		if got := overlayHint(errno); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q in it", errno, got, want)
		}
	}
}
