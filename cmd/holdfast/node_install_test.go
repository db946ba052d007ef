package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/install"
)

// runNode runs holdfast node for the node below a directory, and returns its output and exit
// code.
func runNode(t *testing.T, root string, args ...string) (output string, code int) {
	t.Helper()
	var out strings.Builder
	command := newNodeAgent()
	command.SetOut(&out)
	command.SilenceUsage, command.SilenceErrors = true, true
	command.SetArgs(append(args, "--host-root="+root))
	if err := command.ExecuteContext(t.Context()); err != nil {
		return out.String() + err.Error(), exitCode(err)
	}
	return out.String(), 0
}

func TestNodeInstall(t *testing.T) {
	root, config := t.TempDir(), "version = 3\n"
	for name, text := range map[string]string{"usr/bin/runc": "#!/bin/sh\n", "etc/containerd/config.toml": config, "wrapper": "#!/bin/sh\n"} {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		args []string
		code int
		says string
	}{
		{[]string{"status"}, 3, "the wrapper is not installed"},
		{[]string{"install"}, 1, "--binary"}, // Beside this test is none.
		{[]string{"install", "--runtime-class=x", "--handler=runc"}, 1, "give only one"},
		{[]string{"install", "--binary=" + filepath.Join(root, "wrapper")}, 0, "Installed /opt/holdfast/bin/holdfast-runtime-runc"},
		{[]string{"install", "--binary=" + filepath.Join(root, "wrapper")}, 0, "Nothing to do"},
		{[]string{"status"}, 0, "runc      true        sha256:a8076d3d28d2   /usr/bin/runc"},
		{[]string{"status", "--binary=" + filepath.Join(root, "etc/containerd/config.toml")}, 0, " (outdated) "},
		{[]string{"status", "--handler=crun"}, 3, "crun      false"},
		{[]string{"status", "--handler=runc,crun"}, 1, "not in effect everywhere"},
		{[]string{"status", "-o", "yaml"}, 1, "known is json"},
		{[]string{"uninstall"}, 0, "Restored /etc/containerd/config.toml"},
	}
	for _, step := range steps {
		out, code := runNode(t, root, step.args...)
		if code != step.code || !strings.Contains(out, step.says) {
			t.Errorf("%v: got %d, %s; want %d and %q", step.args, code, out, step.code, step.says)
		}
	}
	if text, err := os.ReadFile(filepath.Join(root, "etc/containerd/config.toml")); err != nil || string(text) != config {
		t.Errorf("after uninstall the configuration is %q: %v", text, err)
	}
}

func TestNodeStatusAsJSON(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/containerd/config.toml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	out, code := runNode(t, root, "status", "-o", "json")
	var status install.Status
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&status); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if code != 3 || status.Runtime != "containerd" || len(status.Handlers) != 1 || status.Handlers[0].Name != "runc" {
		t.Errorf("got %d, %s", code, out)
	}
}
