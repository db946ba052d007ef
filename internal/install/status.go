package install

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
)

// A Status is what is installed on a node.
type Status struct {
	// Runtime is containerd or cri-o.
	Runtime string `json:"runtime"`
	// Handlers are those of the CRI runtime, by name.
	Handlers []HandlerStatus `json:"handlers"`
	// DefaultHandler is that of pods without a RuntimeClass; empty if it is not known.
	DefaultHandler string `json:"defaultHandler,omitempty"`
	// RestartRequired is set if the CRI runtime was not restarted since its configuration was
	// changed.
	RestartRequired bool `json:"restartRequired"`
	// Running is whether the CRI runtime's process was found.
	Running bool `json:"running"`

	chosen bool // the handlers were named: all of them must be installed
}

// A HandlerStatus is what a handler calls.
type HandlerStatus struct {
	Name string `json:"name"`
	// Installed is set if the configuration names the wrapper, and the wrapper is in place.
	Installed bool `json:"installed"`
	// Wrapper is the path of the wrapper, and Version the beginning of its SHA-256.
	Wrapper string `json:"wrapper,omitempty"`
	Version string `json:"version,omitempty"`
	// Outdated is set if the wrapper differs from Options.Binary, if there is such a file.
	Outdated bool `json:"outdated,omitempty"`
	// RealRuntime is the OCI runtime that is called in the end.
	RealRuntime string `json:"realRuntime,omitempty"`
	// Problem is what is wrong, for people.
	Problem string `json:"problem,omitempty"`
}

// The errors of a status.
var (
	// ErrNotInstalled means that no chosen handler calls the wrapper.
	ErrNotInstalled = errors.New("the wrapper is not installed")
	// ErrIncomplete means that something is missing, or a restart of the CRI runtime.
	ErrIncomplete = errors.New("the wrapper is installed, but not in effect everywhere")
)

// GetStatus returns what is installed. Only chosen handlers are in it, if there are such.
func GetStatus(ctx context.Context, o Options) (Status, error) {
	return o.status(ctx, newNode(o.HostRoot))
}

func (o *Options) status(ctx context.Context, n *node) (Status, error) {
	runtime, p, err := o.open(ctx, n)
	if err != nil {
		return Status{}, err
	}
	s := Status{Runtime: runtime.name(), Running: p != nil, Handlers: []HandlerStatus{}, chosen: len(o.Handlers) > 0}
	if s.RestartRequired, err = o.needsRestart(n, p); err != nil {
		return Status{}, err
	}
	called := runtime.called()
	names := slices.Sorted(maps.Keys(called))
	if len(o.Handlers) > 0 {
		names = o.Handlers
	}
	if name, err := runtime.defaultHandler(); err == nil {
		s.DefaultHandler = name
		if len(names) == 0 {
			names = []string{name} // It need not be in the configuration.
		}
	}
	for _, name := range names {
		s.Handlers = append(s.Handlers, o.handlerStatus(n, name, called[name]))
	}
	return s, nil
}

func (o *Options) handlerStatus(n *node, name, program string) HandlerStatus {
	h := HandlerStatus{Name: name, RealRuntime: program}
	if !o.isWrapper(program) {
		return h
	}
	h.Wrapper, h.RealRuntime = program, ""
	config := wrapperConfig{}
	data, err := n.read(program + ".json")
	if err == nil {
		err = json.Unmarshal(data, &config)
	}
	resolved, _ := n.resolve(program) // An error shows as a missing program.
	runtime, _ := n.resolve(config.Runtime)
	switch {
	case !isProgram(n.real(resolved)):
		h.Problem = "the wrapper is missing: no container of this handler can start; run holdfast node install"
	case err != nil:
		h.Problem = fmt.Sprintf("its configuration cannot be read: run holdfast node install: %v", err)
	case config.Runtime == "" || !isProgram(n.real(runtime)):
		h.Problem = fmt.Sprintf("the OCI runtime %q that it calls is missing: run holdfast node install", config.Runtime)
	}
	h.RealRuntime, h.Version = config.Runtime, digest(n.real(resolved))
	if current := digest(o.Binary); current != "" && h.Version != "" {
		h.Outdated = h.Version != current
	}
	h.Installed = h.Problem == ""
	return h
}

// digest returns the beginning of the SHA-256 of a file, or an empty string.
func digest(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("sha256:%x", sum[:6])
}

// Err returns ErrNotInstalled, ErrIncomplete, or nil if all is well.
func (s *Status) Err() error {
	installed, broken := 0, 0
	for _, h := range s.Handlers {
		if h.Installed {
			installed++
		}
		if h.Problem != "" {
			broken++
		}
	}
	switch {
	case broken == 0 && installed == 0:
		return ErrNotInstalled
	case broken > 0, s.RestartRequired, s.chosen && installed < len(s.Handlers):
		return ErrIncomplete
	}
	return nil
}
