package runc

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// mappedFiles returns the files that the processes of the container have mapped shared and
// writable, by their paths in the container.
func (t *target) mappedFiles() (map[string]bool, error) {
	processes, err := t.cgroup.Processes()
	if err != nil {
		return nil, fmt.Errorf("listing the processes of container %s: %w", t.Name, err)
	}
	mapped := map[string]bool{}
	for _, pid := range processes {
		text, err := readProc(pid, "maps")
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the mappings of process %d: %w", pid, err)
		}
		addMapped(mapped, string(text))
	}
	return mapped, nil
}

// addMapped adds the files that are mapped shared and writable of a /proc/PID/maps.
func addMapped(mapped map[string]bool, maps string) {
	const permissions, path = 1, 5
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) <= path || !strings.HasPrefix(fields[permissions], "rw") || !strings.HasSuffix(fields[permissions], "s") {
			continue
		}
		// A path may contain spaces.
		if _, name, ok := strings.Cut(line, "/"); ok {
			mapped["/"+strings.TrimSuffix(name, "\n")] = true
		}
	}
}
