package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writes is a snapshot of a device's write counters. Two of them differ if the device
// was written to in between.
type writes struct {
	// counted is false if an administrator disabled the counters.
	counted bool
	// writes and discards are the completed ones, pending the writes in flight.
	writes, discards, pending uint64
}

// writes reads the kernel's counters, which needs no privileges.
func (d Device) writes() (w writes, err error) {
	read := func(name, format string, into ...any) {
		if err != nil {
			return
		}
		var line []byte
		path := filepath.Join("/sys/block", filepath.Base(d.Path), name)
		if line, err = os.ReadFile(path); err != nil {
			return
		}
		if _, err = fmt.Sscanf(strings.Join(strings.Fields(string(line)), " "), format, into...); err != nil {
			err = fmt.Errorf("reading %s: %w", path, err)
		}
	}
	var on int
	read("queue/iostats", "%d", &on)
	// Read the pending writes first: one that is no longer pending is then completed.
	read("inflight", "%d %d", new(uint64), &w.pending)
	read("stat", "%d %d %d %d %d %d %d %d %d %d %d %d", new(uint64), new(uint64), new(uint64), new(uint64),
		&w.writes, new(uint64), new(uint64), new(uint64), new(uint64), new(uint64), new(uint64), &w.discards)
	w.counted = on != 0
	return w, err
}
