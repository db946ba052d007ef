package wrapper

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// newIPCNamespace returns the path of a namespace in which processes that have ended have left
// shared memory, a semaphore and a message queue.
func newIPCNamespace(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unshare", "--ipc", "sh", "-ec", "ipcmk -M 4096; ipcmk -S 1; ipcmk -Q; echo ready; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // It has been told to end.
	})
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if lines.Text() == "ready" {
			return fmt.Sprintf("/proc/%d/ns/ipc", cmd.Process.Pid)
		}
	}
	t.Fatal("the objects were not made")
	return ""
}

// objectsIn returns the kinds of objects that a namespace has.
func objectsIn(t *testing.T, namespace string) string {
	t.Helper()
	var kinds []string
	for _, kind := range ipcKinds {
		out, err := exec.CommandContext(t.Context(), "nsenter", "--ipc="+namespace, "cat", "/proc/sysvipc/"+kind.name).Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(parseIPC(out, processLives)) > 0 {
			kinds = append(kinds, kind.name)
		}
	}
	return strings.Join(kinds, " ")
}

func TestSystemVObjectsOfThePodMakeRoom(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		shared bool
		left   string
	}{
		"all go if only containers that are restored have the namespace": {false, ""},
		"else only shared memory that nobody uses":                       {true, "sem msg"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			namespace := newIPCNamespace(t)
			if got := objectsIn(t, namespace); got != "shm sem msg" {
				t.Fatalf("the namespace has %q", got)
			}
			place, err := ticket.At(t.TempDir(), "uid-1", "main")
			if err != nil {
				t.Fatal(err)
			}
			if err := prepareIPC(place, specIn(namespace), &ticket.Ticket{SharesIPC: test.shared}); err != nil {
				t.Fatal(err)
			}
			if got := objectsIn(t, namespace); got != test.left {
				t.Errorf("%q are left, want %q", got, test.left)
			}
		})
	}
}

func TestSystemVObjectsOfTheNodeStay(t *testing.T) {
	before := objectsIn(t, "/proc/self/ns/ipc")
	out, err := exec.CommandContext(t.Context(), "ipcmk", "-M", "4096").Output()
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(strings.TrimPrefix(string(out), "Shared memory id: "))
	t.Cleanup(func() {
		if out, err := exec.Command("ipcrm", "-m", id).CombinedOutput(); err != nil {
			t.Errorf("the shared memory of the node is gone: %s", out)
		}
	})
	for _, namespace := range []string{"", "/proc/self/ns/ipc"} {
		place, err := ticket.At(t.TempDir(), "uid-1", "main")
		if err == nil {
			err = prepareIPC(place, specIn(namespace), &ticket.Ticket{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if after := objectsIn(t, "/proc/self/ns/ipc"); !strings.Contains(after, "shm") {
		t.Errorf("the node has %q, and had %q and shared memory", after, before)
	}
}

func specIn(namespace string) *spec {
	s := &spec{}
	s.Linux.Namespaces = append(s.Linux.Namespaces, struct {
		Type string `json:"type"`
		Path string `json:"path"`
	}{"ipc", namespace})
	return s
}

// The checkpoint of each container has the objects of the pod.
func TestSystemVObjectsAreRestoredWithOneContainer(t *testing.T) {
	t.Parallel()
	dir, namespace := t.TempDir(), newIPCNamespace(t)
	size := map[string]int64{}
	for _, name := range []string{"main", "other", "main"} {
		place, err := ticket.At(dir, "uid-1", name)
		if err != nil {
			t.Fatal(err)
		}
		image := filepath.Join(place.ImagesDir(), "ipcns-shm-9.img")
		if err := os.MkdirAll(filepath.Dir(image), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(image, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := prepareIPC(place, specIn(namespace), &ticket.Ticket{}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(image)
		if err != nil {
			t.Fatal(err)
		}
		size[name] = info.Size()
	}
	if size["main"] != 100 || size["other"] != 8 {
		t.Errorf("the images have %v bytes, want that of main whole and of other its head", size)
	}
}

func TestParseIPC(t *testing.T) {
	t.Parallel()
	const list = `       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
         0          3   600                  4096   100   101      0     0     0     0     0          0          0 1764522000                  4096                     0
         0          4   600                  4096   100   101      2     0     0     0     0          0          0 1764522000                  4096                     0
         0          5   600                  4096     7     7      0     0     0     0     0          0          0 1764522000                  4096                     0
`
	got := parseIPC([]byte(list), func(pid int) bool { return pid == 7 })
	want := []ipcObject{{3, true}, {4, false}, {5, false}} // Attached by two processes, and of a creator that lives.
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
