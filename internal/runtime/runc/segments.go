package runc

import (
	"fmt"
	"strconv"
	"strings"
)

// addSegments adds what a process has mapped shared.
func (u *usage) addSegments(pid int) error {
	text, err := readProc(pid, "maps")
	if err != nil {
		return fmt.Errorf("reading the mappings of process %d: %w", pid, err)
	}
	return addSegments(u.segments, string(text))
}

// addSegments adds what is mapped shared in a /proc/PID/maps, files too: how far into the
// segment or file it reaches, in bytes, by device and inode.
func addSegments(segments map[string]int64, maps string) error {
	const permissions, offset, device, inode = 1, 2, 3, 4
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) <= inode {
			return fmt.Errorf("the mapping %q has too few fields", line)
		}
		if !strings.HasSuffix(fields[permissions], "s") {
			continue
		}
		first, last, _ := strings.Cut(fields[0], "-")
		var numbers [3]int64
		for i, text := range []string{first, last, fields[offset]} {
			n, err := strconv.ParseUint(text, 16, 64)
			if err != nil {
				return fmt.Errorf("reading the mapping %q: %w", line, err)
			}
			numbers[i] = int64(n)
		}
		segment := fields[device] + " " + fields[inode]
		segments[segment] = max(segments[segment], numbers[2]+numbers[1]-numbers[0])
	}
	return nil
}
