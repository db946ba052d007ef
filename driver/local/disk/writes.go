package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writes tells whether a device was written to between two moments: they differ then.
type writes struct {
	// counted is false where an administrator turned the counters off.
	counted bool
	// writes and discards were completed, and pending writes were not.
	writes, discards, pending uint64
}

// writes reads the kernel's counters, for which no rights are needed.
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
	// What is pending comes first: by the time it is not, it is completed.
	read("inflight", "%d %d", new(uint64), &w.pending)
	read("stat", "%d %d %d %d %d %d %d %d %d %d %d %d", new(uint64), new(uint64), new(uint64), new(uint64),
		&w.writes, new(uint64), new(uint64), new(uint64), new(uint64), new(uint64), new(uint64), &w.discards)
	w.counted = on != 0
	return w, err
}
