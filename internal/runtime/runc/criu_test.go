package runc

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestMarkedProcesses(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "checkpoint")
	for _, path := range []string{filepath.Join(dir, "0"), dir + "-other"} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(parent, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		environment, directory string
		dir                    string
		want                   bool
	}{
		"its environment names the checkpoint":               {environment: markVariable + "=" + dir, dir: dir, want: true},
		"it has no environment, and works in the checkpoint": {directory: filepath.Join(dir, "0"), dir: dir, want: true},
		"it works in the checkpoint behind a link":           {directory: dir, dir: link, want: true},
		"its environment names another one":                  {environment: markVariable + "=" + dir + "-other", dir: dir},
		"it works in another one":                            {directory: dir + "-other", dir: dir},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			process := exec.Command("sleep", "1000")
			process.Env, process.Dir = []string{"A=b", tt.environment}, tt.directory
			if err := process.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = process.Wait() }() // It returns that the process was killed.
			defer func() { _ = process.Process.Kill() }()
			found, err := markedProcesses(tt.dir)
			if err != nil || slices.Contains(found, process.Process.Pid) != tt.want {
				t.Errorf("found %v, %v; the process is %d", found, err, process.Process.Pid)
			}
		})
	}
}
