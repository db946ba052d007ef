package wrapper

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/ticket"
)

// A kind of System V IPC objects, as proc(5) lists them in /proc/sysvipc.
type ipcKind struct {
	name    string // of the list, and of CRIU's images
	control uintptr
}

var ipcKinds = []ipcKind{{"shm", unix.SYS_SHMCTL}, {"sem", unix.SYS_SEMCTL}, {"msg", unix.SYS_MSGCTL}}

// An ipcObject is an entry of such a list.
type ipcObject struct {
	id int
	// unused is whether no process has attached shared memory, and its creator has ended.
	unused bool
}

// prepareIPC makes room for the System V objects of the checkpoint. They are in the IPC
// namespace of the pod, which outlives its containers, and CRIU creates each with the ID that
// it had. The checkpoint of every container has all of the namespace: those of the first one
// that is restored are created, and those of the others left out.
func prepareIPC(place *ticket.Container, s *spec, t *ticket.Ticket) error {
	namespace := s.ipcNamespace()
	if namespace == "" {
		return nil // CRIU makes a new one, or it is the node's.
	}
	isFirst, err := place.TakeIPC()
	if err != nil {
		return err
	}
	if !isFirst {
		return leaveOutIPC(place.ImagesDir())
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // The thread is in another namespace, and ends with the goroutine.
		failed <- removeIPC(namespace, t.SharesIPC)
	}()
	if err := <-failed; err != nil {
		return fmt.Errorf("removing former System V objects of the pod: %w", err)
	}
	return nil
}

// ipcNamespace returns the path of the IPC namespace that the container joins, "" if it joins
// none.
func (s *spec) ipcNamespace() string {
	for _, n := range s.Linux.Namespaces {
		if n.Type == "ipc" {
			return n.Path
		}
	}
	return ""
}

// leaveOutIPC leaves nothing but their heads of images of System V objects.
func leaveOutIPC(images string) error {
	const head = 8 // bytes: two magic numbers
	for _, kind := range ipcKinds {
		names, err := filepath.Glob(filepath.Join(images, "ipcns-"+kind.name+"-*.img"))
		if err != nil {
			return fmt.Errorf("finding images of System V objects: %w", err)
		}
		for _, name := range names {
			if err := os.Truncate(name, head); err != nil {
				return fmt.Errorf("leaving out System V objects: %w", err)
			}
		}
	}
	return nil
}

// removeIPC removes the objects of a namespace, which this thread enters, unless it is the
// node's. If it is shared with containers that are not restored, only shared memory goes that
// nobody uses.
func removeIPC(namespace string, shared bool) error {
	if entered, err := enterIPC(namespace); err != nil || !entered {
		return err
	}
	for _, kind := range ipcKinds {
		objects, err := kind.list()
		if err != nil {
			return err
		}
		for _, o := range objects {
			if shared && !o.unused {
				continue
			}
			if err := kind.remove(o.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// enterIPC enters a namespace, unless it is that of this process, which is the node's.
func enterIPC(namespace string) (bool, error) {
	fd, err := unix.Open(namespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("opening the IPC namespace %s: %w", namespace, err)
	}
	defer unix.Close(fd)
	var own, other unix.Stat_t
	if err := errors.Join(unix.Stat("/proc/self/ns/ipc", &own), unix.Fstat(fd, &other)); err != nil {
		return false, fmt.Errorf("comparing IPC namespaces: %w", err)
	}
	if own.Ino == other.Ino {
		return false, nil
	}
	if err := unix.Setns(fd, unix.CLONE_NEWIPC); err != nil {
		return false, fmt.Errorf("entering the IPC namespace: %w", err)
	}
	return true, nil
}

func (k ipcKind) list() ([]ipcObject, error) {
	text, err := os.ReadFile("/proc/sysvipc/" + k.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // The kernel has none.
	}
	if err != nil {
		return nil, fmt.Errorf("listing System V objects: %w", err)
	}
	return parseIPC(text, processLives), nil
}

// parseIPC reads a list. The columns have their names in the first line.
func parseIPC(text []byte, lives func(pid int) bool) []ipcObject {
	var objects []ipcObject
	var columns []string
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if columns == nil {
			columns = fields
			continue
		}
		values := map[string]int{}
		for i, name := range columns[:min(len(columns), len(fields))] {
			if n, err := strconv.Atoi(fields[i]); err == nil {
				values[name] = n
			}
		}
		attached, isMemory := values["nattch"]
		for _, name := range []string{"shmid", "semid", "msqid"} {
			if id, ok := values[name]; ok {
				objects = append(objects, ipcObject{id: id, unused: isMemory && attached == 0 && !lives(values["cpid"])})
			}
		}
	}
	return objects
}

func processLives(pid int) bool {
	return pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// remove removes an object; it is no error if it is gone.
func (k ipcKind) remove(id int) error {
	command := [3]uintptr{uintptr(id), unix.IPC_RMID}
	if k.name == "sem" {
		command = [3]uintptr{uintptr(id), 0, unix.IPC_RMID} // semctl(id, number, command)
	}
	_, _, errno := unix.Syscall(k.control, command[0], command[1], command[2])
	if errno != 0 && errno != unix.EINVAL && errno != unix.EIDRM {
		return fmt.Errorf("removing %s %d: %w", k.name, id, errno)
	}
	return nil
}
