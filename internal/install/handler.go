package install

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// A handler is one that the CRI runtime has without us.
type handler struct {
	name  string
	table table // its settings, nil if it has only defaults
	// program is the OCI runtime that it calls. Empty means the usual one.
	program, usual string
}

// errNoHandler means that the CRI runtime has no such handler without us.
var errNoHandler = errors.New("the CRI runtime has no such handler")

// A wantedHandler is one that shall call the wrapper.
type wantedHandler struct {
	name    string
	copyOf  handler // the handler itself, or the one that a new handler is a copy of
	wrapper string  // the path of the wrapper
	runtime string  // the path of the OCI runtime that the wrapper calls
}

// A criRuntime is the configuration of containerd or CRI-O.
type criRuntime interface {
	// name is as the kubelet calls it.
	name() string
	// configFiles are all that are read or written.
	configFiles() []*configFile
	// defaultHandler is that of pods without a RuntimeClass.
	defaultHandler() (string, error)
	// handler returns what a handler is without us, or why it cannot be wrapped.
	handler(name string) (handler, error)
	// called returns what each handler calls now, by name.
	called() map[string]string
	// plan returns the files that change and what they will be. It changes nothing.
	plan(wanted []wantedHandler) (map[*configFile]*document, error)
	// tempDir is where a file is prepared.
	tempDir(file *configFile) string
	// tasks is the directory of the node with the containers whose shims call the OCI runtime
	// that they were started with, or empty if there are no such shims.
	tasks() string
}

// open finds out which CRI runtime the node has, and reads its configuration.
func (o *Options) open(ctx context.Context, n *node) (criRuntime, *process, error) {
	p, err := o.findProcess(n)
	if err != nil {
		return nil, nil, err
	}
	name := o.kind(n, p)
	switch name {
	case containerdName:
		c, err := newContainerd(ctx, n, o.Config, p)
		return c, p, err
	case crioName:
		c, err := newCRIO(n, o.Config, p)
		return c, p, err
	case "":
		return nil, nil, fmt.Errorf("there is neither containerd nor CRI-O below %s: is --host-root the node's root directory?", n.root)
	default:
		return nil, nil, fmt.Errorf("--runtime=%s: known are %s and %s", name, containerdName, crioName)
	}
}

// kind returns the name of the CRI runtime, or an empty string.
func (o *Options) kind(n *node, p *process) string {
	switch {
	case o.Runtime != "":
		return o.Runtime
	case p != nil && p.name == "crio":
		return crioName
	case p != nil:
		return containerdName
	case n.exists(containerdConfig) || n.lookPath(containerdName, nodePath) != "":
		return containerdName
	case n.exists(filepath.Dir(crioConfig)) || n.lookPath("crio", nodePath) != "":
		return crioName
	}
	return ""
}

// findProcess returns the CRI runtime that runs on the node, or nil.
func (o *Options) findProcess(n *node) (*process, error) {
	names := map[string][]string{"": {containerdName, "crio"}, containerdName: {containerdName}, crioName: {"crio"}}[o.Runtime]
	var all []process
	for _, p := range n.processes(names...) {
		if config := p.option("--config", "-c"); o.Config == "" || config == o.Config || config == "" {
			all = append(all, p)
		}
	}
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return &all[0], nil
	default:
		return nil, fmt.Errorf("%s (process %d) and %s (process %d) run on the node: name the one that the kubelet uses with --runtime, or its configuration with --config",
			all[0].name, all[0].PID, all[1].name, all[1].PID)
	}
}

// wrapperName begins the names of the wrapper's copies.
const wrapperName = "holdfast-runtime"

// wrapperPath is the path of the wrapper for a handler.
func (o *Options) wrapperPath(handler string) string {
	return filepath.Join(o.InstallDir, wrapperName+"-"+handler)
}

func (o *Options) isWrapper(program string) bool {
	return strings.HasPrefix(program, o.wrapperPath(""))
}

// realRuntime returns the absolute path of the OCI runtime that a handler calls without us.
func (o *Options) realRuntime(n *node, h handler, dirs string) (string, error) {
	program := h.program
	if program == "" {
		program = h.usual
	}
	if !strings.Contains(program, "/") {
		found := n.lookPath(program, dirs+":"+nodePath)
		if found == "" {
			return "", fmt.Errorf("handler %s calls %s, which is in none of the directories %s: write its whole path into the configuration", h.name, program, dirs)
		}
		program = found
	}
	resolved, err := n.resolve(program)
	if err != nil {
		return "", err
	}
	if !isProgram(n.real(resolved)) {
		return "", fmt.Errorf("handler %s calls %s, which is no program on the node: correct the configuration first", h.name, program)
	}
	switch base := filepath.Base(resolved); {
	case strings.HasPrefix(base, wrapperName):
		return "", fmt.Errorf("handler %s calls %s, which is a holdfast-runtime that was put there by other means: make the handler call runc or crun first", h.name, program)
	case strings.HasPrefix(base, "runc"), strings.HasPrefix(base, "crun"):
		return program, nil
	}
	return "", fmt.Errorf("handler %s calls %s, which is neither runc nor crun but perhaps a wrapper itself, and the order of two wrappers cannot be guessed: "+
		"choose a handler that calls runc or crun with --handler, or make this wrapper call holdfast-runtime", h.name, program)
}
