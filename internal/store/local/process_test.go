package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

// childVariable makes this test binary a process that writes to a store: it has the
// directory and the name of what it writes.
const childVariable = "LOCAL_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir, name, ok := strings.Cut(os.Getenv(childVariable), "|"); ok {
		if err := child(dir, name); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child reads keys from its standard input. It writes an object with each key and prints
// the result. It says "ready" before each commit.
func child(dir, name string) error {
	keys := bufio.NewScanner(os.Stdin)
	for keys.Scan() {
		w, err := New(dir).Create(context.Background(), keys.Text())
		if err != nil {
			return err
		}
		if _, err := w.Write(storetest.Data(name, 1<<20)); err != nil {
			return err
		}
		fmt.Println("ready")
		if !keys.Scan() {
			return io.ErrUnexpectedEOF
		}
		fmt.Println(strings.ReplaceAll(fmt.Sprint(w.Commit()), "\n", " "))
	}
	return keys.Err()
}

// A process is a child that is running.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Writer
	lines *bufio.Scanner
}

func startProcess(t *testing.T, dir, name string) *process {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+dir+"|"+name)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &process{t: t, cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
}

func (p *process) send(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, line); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) receive() string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatalf("the process has ended: %v", p.lines.Err())
	}
	return p.lines.Text()
}

func TestUploadOfAKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := New(dir)
	for _, key := range []string{"a/b/c", "a/b/d"} {
		p := startProcess(t, dir, "x")
		p.send(key)
		if line := p.receive(); line != "ready" {
			t.Fatal(line)
		}
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = p.cmd.Wait() // It returns that the process was killed.
	}
	_, err := s.Open(t.Context(), "a/b/c")
	storetest.WantError(t, "opening it", err, store.ErrNotFound)
	storetest.WantList(t, s, "", "a/b/c (incomplete)", "a/b/d (incomplete)")
	storetest.MustPut(t, s, "a/b/c", []byte("new"))
	storetest.WantData(t, s, "a/b/c", []byte("new"))
	for _, key := range []string{"a/b/c", "a/b/d"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	wantFiles(t, dir)
}

func TestOneOfTwoProcessesWins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	processes := map[string]*process{"x": startProcess(t, dir, "x"), "y": startProcess(t, dir, "y")}
	for i := range 10 {
		key := fmt.Sprint("dir/", i)
		for _, p := range processes {
			p.send(key)
		}
		for _, p := range processes {
			if line := p.receive(); line != "ready" {
				t.Fatal(line)
			}
		}
		for _, p := range processes {
			p.send("commit")
		}
		winner := ""
		for name, p := range processes {
			switch line := p.receive(); {
			case line == "<nil>" && winner == "":
				winner = name
			case !strings.Contains(line, store.ErrExists.Error()):
				t.Errorf("%s: process %s: %s (the winner is %q)", key, name, line, winner)
			}
		}
		storetest.WantData(t, New(dir), key, storetest.Data(winner, 1<<20))
	}
	if files := files(t, dir); len(files) != 10 {
		t.Errorf("the files are %q, want 10 objects", files)
	}
}

// files returns the paths of all files and empty directories below a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && path != dir {
			all = append(all, path)
		}
		if err == nil && e.IsDir() && len(all) > 0 {
			if entries, err := os.ReadDir(path); err == nil && len(entries) > 0 {
				all = all[:len(all)-1]
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantFiles checks that there are just these files, and no empty directories.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	got := files(t, dir)
	for i := range got {
		got[i] = strings.TrimPrefix(got[i], dir+"/")
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the files are %q, want %q", got, want)
	}
}
