package runc

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// mappedFiles are the files that the processes of a container have mapped shared and writable.
// An overlay shows other inodes in /proc/PID/maps than its upper directory has, and a volume
// may have several paths in the container.
type mappedFiles struct {
	paths  map[string]bool // in the container
	inodes map[uint64]bool // whatever their file system
}

// has reports whether a file of a path in the container, or of an inode, is mapped. It may
// take others for it.
func (m mappedFiles) has(path string, inode uint64) bool { return m.paths[path] || m.inodes[inode] }

func (t *target) mappedFiles() (mappedFiles, error) {
	mapped := mappedFiles{paths: map[string]bool{}, inodes: map[uint64]bool{}}
	processes, err := t.cgroup.Processes()
	if err != nil {
		return mapped, fmt.Errorf("listing the processes of container %s: %w", t.Name, err)
	}
	for _, pid := range processes {
		text, err := readProc(pid, "maps")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return mapped, fmt.Errorf("reading the mappings of process %d: %w", pid, err)
		}
		mapped.add(string(text))
	}
	return mapped, nil
}

// add adds the files that are mapped shared and writable of a /proc/PID/maps.
func (m mappedFiles) add(maps string) {
	const permissions, inode, path = 1, 4, 5
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) <= path || !strings.HasPrefix(fields[permissions], "rw") || !strings.HasSuffix(fields[permissions], "s") {
			continue
		}
		// A path may contain spaces.
		if _, name, ok := strings.Cut(line, "/"); ok {
			m.paths["/"+strings.TrimSuffix(name, "\n")] = true
		}
		if number, err := strconv.ParseUint(fields[inode], 10, 64); err == nil {
			m.inodes[number] = true
		}
	}
}
