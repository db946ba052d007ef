package oci

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func writeAll(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBundle(t *testing.T) {
	const (
		containerd = "run/containerd/io.containerd.runtime.v2.task/k8s.io/" + id
		crio       = "run/containers/storage/overlay-containers/" + id + "/userdata"
		wrapper    = "/opt/holdfast/bin/holdfast-runtime-runc"
	)
	tests := map[string]struct {
		files   map[string]string
		runtime string
		wrapped bool
	}{
		"containerd with a runc in its PATH that is the wrapper": {map[string]string{containerd + "/config.json": "{}", containerd + "/options.json": "{}",
			"usr/local/sbin/runc": "", "usr/local/sbin/runc.json": `{"runtime":"/usr/bin/runc"}`, "usr/bin/runc": ""}, "", true},
		"containerd with another runc before it in its PATH": {map[string]string{containerd + "/config.json": "{}", containerd + "/options.json": "{}",
			"usr/local/sbin/runc": "", "usr/bin/runc": "", "usr/bin/runc.json": `{"runtime":"/usr/bin/runc"}`}, "", false},
		"containerd with its default runtime": {map[string]string{containerd + "/config.json": "{}", containerd + "/options.json": `{"systemd_cgroup":true}`}, "", false},
		"containerd with another runtime":     {map[string]string{containerd + "/config.json": "{}", containerd + "/options.json": `{"binary_name":"/usr/bin/crun"}`}, "/usr/bin/crun", false},
		"containerd with the wrapper": {map[string]string{containerd + "/config.json": "{}", containerd + "/options.json": `{"binary_name":"` + wrapper + `"}`,
			wrapper + ".json": `{"runtime":"/usr/bin/runc"}`}, wrapper, true},
		"a program with the wrapper's name that is not configured": {map[string]string{containerd + "/config.json": "{}", containerd + "/options.json": `{"binary_name":"` + wrapper + `"}`}, wrapper, false},
		"CRI-O with the wrapper": {map[string]string{crio + "/config.json": "{}", crio + "/conmon-pidfile": "17\n",
			"proc/17/cmdline": "/usr/bin/conmon\x00-b\x00/x\x00-r\x00" + wrapper + "\x00", wrapper + ".json": `{"runtime":"/usr/bin/crun"}`}, wrapper, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			writeAll(t, root, tt.files)
			b, err := Node{Root: root}.Bundle(id)
			if err != nil {
				t.Fatal(err)
			}
			if _, ofCRIO := tt.files[crio+"/config.json"]; b.OfPod == ofCRIO {
				t.Errorf("all containers of the pod have the same runtime: %v", b.OfPod)
			}
			if b.Runtime != tt.runtime || b.Wrapped != tt.wrapped || string(b.Spec) != "{}" {
				t.Errorf("got %+v, want the runtime %q, wrapped %v", b, tt.runtime, tt.wrapped)
			}
		})
	}
	if _, err := (Node{Root: t.TempDir()}).Bundle(id); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestKillOfAContainerThatHasEnded(t *testing.T) {
	root := t.TempDir()
	writeAll(t, root, map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpu\n"})
	if err := (Node{Root: root}).Kill(t.Context(), id); err != nil {
		t.Error(err)
	}
}
