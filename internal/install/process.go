package install

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A process is a running CRI runtime of the node.
type process struct {
	PID int `json:"pid"`
	// Start is when it was started, in the kernel's clock ticks since the boot, and Boot
	// which boot that was. With the PID they tell whether it is still the same process.
	Start string `json:"start"`
	Boot  string `json:"boot"`

	name string
	args []string
	path string // its PATH
}

// processes returns the processes with one of these names. Those of containers that run a CRI
// runtime of their own, and the containerd of Docker, are left out.
func (n *node) processes(names ...string) []process {
	own, _ := os.Readlink(n.real("/proc/1/ns/pid"))
	boot, _ := os.ReadFile(n.real("/proc/sys/kernel/random/boot_id"))
	entries, _ := os.ReadDir(n.real("/proc")) // Without it none is known.
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join(n.real("/proc"), entry.Name())
		stat, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue
		}
		name, rest := parseStat(string(stat))
		namespace, _ := os.Readlink(filepath.Join(dir, "ns/pid"))
		if !slices.Contains(names, name) || len(rest) < 20 || namespace != own {
			continue
		}
		p := process{
			PID: pid, Start: rest[19], Boot: strings.TrimSpace(string(boot)),
			name: name, args: words(filepath.Join(dir, "cmdline")), path: nodePath,
		}
		for _, variable := range words(filepath.Join(dir, "environ")) {
			if path, ok := strings.CutPrefix(variable, "PATH="); ok {
				p.path = path
			}
		}
		if !strings.Contains(p.option("--config", "-c"), "/docker/") {
			all = append(all, p)
		}
	}
	return all
}

// parseStat returns the name of a process, and the fields of its stat file after that, from
// the state on. See proc_pid_stat(5): the start time is field 22.
func parseStat(stat string) (name string, rest []string) {
	open, closing := strings.Index(stat, "("), strings.LastIndex(stat, ")")
	if open < 0 || closing < open {
		return "", nil
	}
	return stat[open+1 : closing], strings.Fields(stat[closing+1:])
}

func words(file string) []string {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	return strings.Split(string(bytes.TrimRight(data, "\x00")), "\x00")
}

// option returns the value of an option on the command line.
func (p *process) option(names ...string) string {
	for i, arg := range p.args {
		for _, name := range names {
			if value, ok := strings.CutPrefix(arg, name+"="); ok {
				return value
			}
			if arg == name && i+1 < len(p.args) {
				return p.args[i+1]
			}
		}
	}
	return ""
}

func (p *process) same(other *process) bool {
	return p != nil && other != nil && p.PID == other.PID && p.Start == other.Start && p.Boot == other.Boot
}

// unit returns the systemd unit of a process, or an empty string.
func (n *node) unit(p *process) string {
	data, err := os.ReadFile(n.real(fmt.Sprintf("/proc/%d/cgroup", p.PID)))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if base := filepath.Base(strings.TrimSpace(line)); strings.HasSuffix(base, ".service") {
			return base
		}
	}
	return ""
}
