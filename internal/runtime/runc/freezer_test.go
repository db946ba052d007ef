package runc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// cgroupFiles makes a directory that looks like a control group.
func cgroupFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFreezerState(t *testing.T) {
	v2 := func(freeze, frozen string) map[string]string {
		return map[string]string{"cgroup.freeze": freeze + "\n", "cgroup.events": "populated 1\nfrozen " + frozen + "\n"}
	}
	v1 := func(state string) map[string]string { return map[string]string{"freezer.state": state + "\n"} }
	tests := map[string]struct {
		files             map[string]string
		v2                bool
		frozen, requested bool
	}{
		"version 1, running":                         {v1("THAWED"), false, false, false},
		"version 1, some processes still run":        {v1("FREEZING"), false, false, true},
		"version 1, frozen":                          {v1("FROZEN"), false, true, true},
		"version 2, running":                         {v2("0", "0"), true, false, false},
		"version 2, some processes still run":        {v2("1", "0"), true, false, true},
		"version 2, frozen":                          {v2("1", "1"), true, true, true},
		"version 2, frozen by a group that it is in": {v2("0", "1"), true, true, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f := freezer{Dir: cgroupFiles(t, tt.files), V2: tt.v2}
			frozen, err := f.isFrozen()
			if err != nil || frozen != tt.frozen {
				t.Errorf("frozen: %v, %v; want %v", frozen, err, tt.frozen)
			}
			requested, err := f.isRequested()
			if err != nil || requested != tt.requested {
				t.Errorf("requested: %v, %v; want %v", requested, err, tt.requested)
			}
		})
	}
}

func TestFreezerWrites(t *testing.T) {
	tests := map[string]struct {
		f            freezer
		file         string
		frozen, thaw string
	}{
		"version 1": {freezer{Dir: cgroupFiles(t, map[string]string{"freezer.state": "THAWED"})}, "freezer.state", "FROZEN", "THAWED"},
		"version 2": {freezer{V2: true, Dir: cgroupFiles(t, map[string]string{"cgroup.freeze": "0", "cgroup.events": "frozen 1"})},
			"cgroup.freeze", "1", "0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if err := tt.f.freeze(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := read(t, tt.f, tt.file); got[:len(tt.frozen)] != tt.frozen {
				t.Errorf("freeze wrote %q, not %q", got, tt.frozen)
			}
			if err := tt.f.thaw(); err != nil {
				t.Fatal(err)
			}
			if got := read(t, tt.f, tt.file); got[:len(tt.thaw)] != tt.thaw {
				t.Errorf("thaw wrote %q, not %q", got, tt.thaw)
			}
		})
	}
}

func read(t *testing.T, f freezer, name string) string {
	t.Helper()
	text, err := f.read(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestFreezeThatDoesNotEndIsTakenBack(t *testing.T) {
	f := freezer{V2: true, Dir: cgroupFiles(t, map[string]string{"cgroup.freeze": "0", "cgroup.events": "frozen 0"})}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.freeze(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("freeze returned %v", err)
	}
	if got := read(t, f, "cgroup.freeze"); got != "0" {
		t.Errorf("the freezer is left at %q", got)
	}
}

func TestThawOfAContainerThatIsGone(t *testing.T) {
	f := freezer{Dir: filepath.Join(t.TempDir(), "gone")}
	if err := f.thaw(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(f.Dir); !os.IsNotExist(err) {
		t.Errorf("thaw has made its control group again: %v", err)
	}
}
