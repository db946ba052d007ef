package app

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// releaseProgramPages takes the pages of the program's own file out of the process's resident
// memory. What it uses again is mapped again, from the page cache. What it does not is a
// quarter of all: the start touches much that nothing touches later.
func releaseProgramPages() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("finding the program's file: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("reading what is mapped of the program: %w", err)
	}
	for _, m := range unchangedMappings(string(maps), program) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("releasing pages of the program: %w", errno)
		}
	}
	return nil
}

// A mapping is a range of addresses.
type mapping struct{ start, end uintptr }

// unchangedMappings returns the mappings of a file, from /proc/PID/smaps, that are as the file
// is and stay so. Others would lose their changes: data, and what a linker has relocated.
func unchangedMappings(smaps, file string) []mapping {
	var found []mapping
	var current mapping
	ofFile := false
	for lines := bufio.NewScanner(strings.NewReader(smaps)); lines.Scan(); {
		line := lines.Text()
		var m mapping
		var permissions string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &permissions); n == 3 {
			current = m
			ofFile = strings.HasSuffix(line, " "+file) && strings.HasPrefix(permissions, "r-") && strings.HasSuffix(permissions, "p")
			continue
		}
		if changed, ok := strings.CutPrefix(line, "Anonymous:"); ok && ofFile && strings.TrimSpace(changed) == "0 kB" {
			found = append(found, current)
		}
	}
	return found
}
