package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckName(t *testing.T) {
	tests := map[string]struct {
		name string
		good bool
	}{
		"a word will do":                     {"dev", true},
		"a digit will do":                    {"1", true},
		"dashes inside will do":              {"a-b--c", true},
		"thirty characters will do":          {strings.Repeat("a", 30), true},
		"thirty-one are too many":            {strings.Repeat("a", 31), false},
		"nothing is no name":                 {"", false},
		"a dash does not begin it":           {"-a", false},
		"a dash does not end it":             {"a-", false},
		"capitals are not for node names":    {"Dev", false},
		"a path leads out of the folder":     {"../a", false},
		"a lock file is not a cluster":       {"a.lock", false},
		"a line break is not part of a name": {"a\n", false},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			if err := CheckName(tt.name); (err == nil) != tt.good {
				t.Errorf("CheckName(%q) = %v, want good: %v", tt.name, err, tt.good)
			}
		})
	}
}

func TestHome(t *testing.T) {
	work := t.TempDir()
	t.Chdir(work)
	t.Setenv("XDG_CACHE_HOME", "/cache")
	tests := map[string]struct{ set, want string }{
		"is in the cache folder by default":       {"", "/cache/holdfast/devcluster"},
		"is where the environment says":           {"/elsewhere", "/elsewhere"},
		"does not move when the work folder does": {"here", filepath.Join(work, "here")},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			t.Setenv(HomeVariable, tt.set)
			got, err := Home()
			if err != nil || got != tt.want {
				t.Errorf("Home() = %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

// newDir is the folder of a cluster in a home of its own.
func newDir(t *testing.T, name string) Dir {
	t.Helper()
	home := t.TempDir()
	if resolved, err := filepath.EvalSymlinks(home); err == nil {
		home = resolved
	}
	t.Setenv(HomeVariable, home)
	dir, err := DirOf(name)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// under lists the files and folders below a folder.
func under(t *testing.T, folder string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		if path != folder {
			found = append(found, strings.TrimPrefix(path, folder+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAClusterIsReadyOnlyWhileItRuns(t *testing.T) {
	dir := newDir(t, "dev")
	if err := dir.Ready(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before it was: %v, want ErrNotRunning", err)
	}
	lock, err := dir.take()
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.Ready(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("coming up: %v, want ErrNotRunning", err)
	}
	write(t, dir.ready(), "")
	if err := dir.Ready(); err != nil {
		t.Errorf("up: %v", err)
	}
	lock.Close() // As after kill -9: the file stays.
	if err := dir.Ready(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("dead: %v, want ErrNotRunning", err)
	}
}

func TestANameIsTakenOnce(t *testing.T) {
	dir := newDir(t, "dev")
	lock, err := dir.take()
	if err != nil {
		t.Fatal(err)
	}
	if got := dir.owner(); got != os.Getpid() {
		t.Errorf("the owner is %d, want this process, %d", got, os.Getpid())
	}
	if _, err := dir.take(); err == nil || !strings.Contains(err.Error(), "devcluster down --name dev") {
		t.Errorf("taking it again: %v, want an error that says how to stop the cluster", err)
	}
	if err := dir.unlock(lock); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), under(t, filepath.Dir(string(dir)))); diff != "" {
		t.Errorf("left after the lock was given back: %s", diff)
	}
	lock, err = dir.take()
	if err != nil {
		t.Fatalf("taking it after it was given back: %v", err)
	}
	lock.Close()
}

// Who has opened the lock's file before it was removed must not believe that a
// lock on it excludes anybody.
func TestALockOnARemovedFileIsNone(t *testing.T) {
	dir := newDir(t, "dev")
	lock, err := dir.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if !current(lock) {
		t.Error("the lock's file is not taken for the one of its name")
	}
	if err := os.Remove(dir.lockFile()); err != nil {
		t.Fatal(err)
	}
	if current(lock) {
		t.Error("a file that was removed is taken for the one of its name")
	}
	write(t, dir.lockFile(), "")
	if current(lock) {
		t.Error("a file is taken for another of its name")
	}
}

func TestAProcessThatDoesNotHoldTheLockIsNotTheOwner(t *testing.T) {
	dir := newDir(t, "dev")
	write(t, dir.lockFile(), "1") // The number was used again.
	if got := dir.owner(); got != 0 {
		t.Errorf("the owner is %d, want none", got)
	}
}
