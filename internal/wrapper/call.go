package wrapper

import (
	"path/filepath"
	"slices"
	"strings"
)

// A call is how the program was called: as runc and crun are.
type call struct {
	global  []string // options before the command
	command string   // "" if there is none
	args    []string // after the command
	id      string   // of the container: the last argument

	root, log, logFormat string // global options

	bundle, specFile, pidFile, consoleSocket string // options of create and run
	noPivot                                  bool
}

// Options that have a value. Both programs know some that the other one does not; what
// neither knows is taken for a flag.
var (
	globalValues = []string{"root", "log", "log-format", "criu", "rootless", "cgroup-manager"}
	createValues = []string{"bundle", "b", "config", "f", "pid-file", "console-socket", "pidfd-socket", "preserve-fds"}
	commands     = []string{
		"checkpoint", "create", "delete", "events", "exec", "features", "help", "init", "kill", "list", "mounts", "pause",
		"ps", "restore", "resume", "run", "spec", "start", "state", "update",
	}
)

// parse understands the arguments after the program's name. Arguments that it does not
// understand are the real runtime's to reject.
func parse(args []string) call {
	var c call
	n := 0
	for n < len(args) && strings.HasPrefix(args[n], "-") {
		name, value, used := option(args[n:], globalValues)
		// An option that is not known may have a value: commands are known.
		if used == 1 && !strings.Contains(args[n], "=") && len(args) > n+2 &&
			!isOption(args[n+1]) && !slices.Contains(commands, args[n+1]) && slices.Contains(commands, args[n+2]) {
			used = 2
		}
		c.setGlobal(name, value)
		n += used
	}
	n = min(n, len(args))
	c.global = args[:n]
	if n == len(args) {
		return c
	}
	c.command, c.args = args[n], args[n+1:]
	c.parseCommand()
	return c
}

func isOption(arg string) bool { return strings.HasPrefix(arg, "-") && arg != "-" }

// option takes an option from the beginning of arguments, and returns how many it has used.
// Both runtimes accept "--name value" and "--name=value"; runc also one dash, and crun values
// that follow a short name at once.
func option(args []string, withValue []string) (name, value string, used int) {
	name, value, has := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
	if !strings.HasPrefix(args[0], "--") && len(name) > 1 && (name[0] == 'b' || name[0] == 'f') && !slices.Contains(withValue, name) {
		return name[:1], strings.TrimPrefix(args[0], "-"+name[:1]), 1
	}
	if has || !slices.Contains(withValue, name) {
		return name, value, 1
	}
	if len(args) == 1 {
		return name, "", 1
	}
	return name, args[1], 2
}

func (c *call) setGlobal(name, value string) {
	switch name {
	case "root":
		c.root = value
	case "log":
		c.log = value
	case "log-format":
		c.logFormat = value
	}
}

// parseCommand understands the options of create and run. Other commands have none that
// matter here.
func (c *call) parseCommand() {
	for rest := c.args; len(rest) > 0; {
		if !isOption(rest[0]) {
			c.id, rest = rest[0], rest[1:]
			continue
		}
		if rest[0] == "--" {
			rest = rest[1:]
			continue
		}
		name, value, used := option(rest, createValues)
		c.setCreate(name, value)
		rest = rest[used:]
	}
}

func (c *call) setCreate(name, value string) {
	switch name {
	case "bundle", "b":
		c.bundle = value
	case "config", "f":
		c.specFile = value
	case "pid-file":
		c.pidFile = value
	case "console-socket":
		c.consoleSocket = value
	case "no-pivot":
		c.noPivot = value != "false"
	}
}

// bundleDir is the directory of the bundle: the working directory if none is named.
func (c call) bundleDir() string {
	if c.bundle == "" {
		return "."
	}
	return c.bundle
}

// specPath is the path of the OCI specification.
func (c call) specPath() string {
	if c.specFile != "" {
		return c.specFile
	}
	return filepath.Join(c.bundleDir(), "config.json")
}

// stateDir is the directory in which the runtime keeps the state of the container, "" if the
// ID is none. The runtime removes it together with the container.
func (c call) stateDir(runtime string) string {
	if c.id == "" || strings.Contains(c.id, "/") || strings.HasPrefix(c.id, ".") {
		return ""
	}
	root := c.root
	if root == "" {
		root = "/run/runc"
		if strings.Contains(filepath.Base(runtime), "crun") {
			root = "/run/crun"
		}
	}
	return filepath.Join(root, c.id)
}
