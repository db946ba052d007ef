package restore

import (
	"fmt"
	"strings"
	"time"
)

// A phase is a part of the restore of one container.
type phase struct {
	name, text string
	seconds    float64
}

// phaseNames are those of all phases, of which total is the last.
var phaseNames = []string{"fetch", "sync", "start", "rootfs", "criu", "total"}

// phases returns how long the restore of a container took, from the begin of the fetch to its
// first instruction. The ticket and the outcome have the times: they outlive the agent.
func (c *container) phases() []phase {
	o, fetched := c.outcome, c.fetched()
	if fetched.At.IsZero() {
		fetched.At = o.Started // An older agent has fetched it, and did not note when.
	}
	since := func(t time.Time) float64 { return max(0, t.Sub(fetched.At).Seconds()) }
	return []phase{
		{"fetch", "fetched and verified", fetched.Seconds},
		{"sync", "written to disk", fetched.SyncSeconds},
		{"start", "started by the kubelet", since(o.Started)},
		{"rootfs", "root file system", o.RootfsSeconds},
		{"criu", "CRIU", o.RestoreSeconds},
		{"total", "", fetched.Seconds + fetched.SyncSeconds + since(o.Ended)},
	}
}

// describe says how long it took to restore a container.
func (c *container) describe() string {
	all := c.phases()
	last := len(all) - 1
	var parts []string
	for _, p := range all[:last] {
		parts = append(parts, fmt.Sprintf("%s %.2f s", p.text, p.seconds))
	}
	return fmt.Sprintf("container %s in %.2f s (%s)%s", c.name, all[last].seconds, strings.Join(parts, ", "), c.where())
}

// where says where the memory of a container was before it was restored.
func (c *container) where() string {
	switch fetched := c.fetched(); {
	case fetched.At.IsZero():
		return ""
	case fetched.OnDisk != "":
		return ", its memory on disk: " + fetched.OnDisk
	default:
		return ", its memory in RAM"
	}
}

// observePhases adds them to the metrics.
func (c *container) observePhases() {
	for _, p := range c.phases() {
		phaseSeconds.WithLabelValues(p.name).Observe(p.seconds)
	}
}
