package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultDir is the usual directory of the wrapper on a node.
const DefaultDir = "/opt/holdfast/bin"

// Options are what is installed where.
type Options struct {
	// HostRoot is where the node's file system is mounted. All other paths but Binary are
	// those of the node.
	HostRoot string
	// InstallDir is the directory of the wrapper.
	InstallDir string
	// Binary is the wrapper to install.
	Binary string
	// Runtime is containerd or cri-o. If it is empty, the one that runs is taken.
	Runtime string
	// Config is the configuration of the CRI runtime. If it is empty, that of the process,
	// else the usual one is taken.
	Config string
	// Handlers are those that call the wrapper. If there are none, it is the default one.
	Handlers []string
	// RuntimeClass is the name of a new handler, a copy of the default one. If it is not empty,
	// there are no Handlers.
	RuntimeClass string
	// TicketDir and Wait are for the wrapper: where the tickets of restores are, and how long
	// it waits for one.
	TicketDir string
	Wait      time.Duration
	// Restart restarts the CRI runtime if it must be. Containers run on.
	Restart bool
	// Out receives what was done, for people.
	Out io.Writer
}

// Validate reports all mistakes.
func (o *Options) Validate() error {
	var errs []error
	for name, path := range map[string]string{"host-root": o.HostRoot, "install-dir": o.InstallDir, "ticket-dir": o.TicketDir} {
		if !filepath.IsAbs(path) {
			errs = append(errs, fmt.Errorf("--%s=%s: want an absolute path", name, path))
		}
	}
	if o.Config != "" && !filepath.IsAbs(o.Config) {
		errs = append(errs, fmt.Errorf("--config=%s: want an absolute path of the node", o.Config))
	}
	if o.Wait <= 0 {
		errs = append(errs, fmt.Errorf("--wait=%s: want a positive duration", o.Wait))
	}
	return errors.Join(append(errs, o.validateHandlers()...)...)
}

func (o *Options) validateHandlers() (errs []error) {
	if o.RuntimeClass != "" && len(o.Handlers) > 0 {
		errs = append(errs, errors.New("--runtime-class is for a handler of its own, --handler for existing ones: give only one of them"))
	}
	if o.RuntimeClass != "" && !label.MatchString(o.RuntimeClass) {
		errs = append(errs, fmt.Errorf("--runtime-class=%s: want at most 63 lower case letters, digits and hyphens, as for handlers of a RuntimeClass", o.RuntimeClass))
	}
	for _, name := range o.Handlers {
		if !handlerName.MatchString(name) {
			errs = append(errs, fmt.Errorf("--handler=%s: want letters, digits, hyphens, dots and underscores", name))
		}
	}
	return errs
}

var (
	label       = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	handlerName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9._]*$`)
)

// Install puts the wrapper in place. It changes nothing if it returns an error about the
// configuration; after any other, the next run goes on.
func Install(ctx context.Context, o Options) error {
	return o.install(ctx, newNode(o.HostRoot))
}

func (o *Options) install(ctx context.Context, n *node) error {
	unlock, err := o.lock(n)
	if err != nil {
		return err
	}
	defer unlock()
	runtime, p, err := o.open(ctx, n)
	if err != nil {
		return err
	}
	wanted, err := o.wanted(n, runtime, p)
	if err != nil {
		return err
	}
	edited, err := runtime.plan(wanted)
	if err != nil {
		return err
	}
	changed, err := o.writeWrappers(ctx, n, wanted)
	if err != nil {
		return err
	}
	reconfigured, err := o.writeConfig(n, runtime, p, edited)
	if err != nil {
		return err
	}
	if !changed && !reconfigured {
		o.say("Nothing to do: the wrapper is installed.")
	}
	o.warmCRIU(ctx, n)
	o.sayRuntimeClass()
	return o.restart(ctx, n, runtime, p, reconfigured)
}

func (o *Options) say(format string, args ...any) { fmt.Fprintf(o.Out, format+"\n", args...) }

// lock keeps two runs on a node apart. The lock ends with the process.
func (o *Options) lock(n *node) (unlock func(), err error) {
	dir, err := n.resolve(o.InstallDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.real(dir), 0o755); err != nil {
		return nil, fmt.Errorf("creating the directory of the wrapper (if it cannot be written on this system, choose another one with --install-dir): %w", err)
	}
	file, err := os.Open(n.real(dir))
	if err != nil {
		return nil, fmt.Errorf("locking the directory of the wrapper: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: another installation is running: %w", dir, err)
	}
	return func() {
		removeEmpty(n.real(dir))
		file.Close()
	}, nil
}

// removeEmpty removes the directory of the wrapper if nothing is in it, and the one above it
// if that is only for it.
func removeEmpty(dir string) {
	above := filepath.Dir(dir)
	if os.Remove(dir) == nil && filepath.Base(above) == "holdfast" {
		_ = os.Remove(above) // Others may have put something there.
	}
}

// wanted returns the handlers that shall call the wrapper: the chosen ones, and those that do
// already.
func (o *Options) wanted(n *node, runtime criRuntime, p *process) ([]wantedHandler, error) {
	defaultName, err := o.chosen(runtime)
	if err != nil {
		return nil, err
	}
	var names []string
	if o.RuntimeClass != "" {
		names = append(names, o.RuntimeClass)
		if _, err := runtime.handler(o.RuntimeClass); !errors.Is(err, errNoHandler) {
			return nil, fmt.Errorf("--runtime-class=%s: %s has this handler already: choose another name, or put the wrapper in front of it with --handler", o.RuntimeClass, runtime.name())
		}
	} else if names = slices.Clone(o.Handlers); len(names) == 0 {
		names = append(names, defaultName)
	}
	for name, program := range runtime.called() {
		if o.isWrapper(program) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var all []wantedHandler
	for _, name := range slices.Compact(names) {
		w, err := o.want(n, runtime, name, p)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// chosen returns the default handler if it is needed.
func (o *Options) chosen(runtime criRuntime) (string, error) {
	if len(o.Handlers) > 0 {
		return "", nil
	}
	return runtime.defaultHandler()
}

func (o *Options) want(n *node, runtime criRuntime, name string, p *process) (wantedHandler, error) {
	h, err := runtime.handler(name)
	if errors.Is(err, errNoHandler) && (name == o.RuntimeClass || o.isWrapper(runtime.called()[name])) {
		// It is a handler of our own, now or since an earlier run.
		defaultName, problem := runtime.defaultHandler()
		if problem != nil {
			return wantedHandler{}, problem
		}
		h, err = runtime.handler(defaultName)
	}
	if err != nil {
		return wantedHandler{}, err
	}
	dirs := nodePath
	if p != nil {
		dirs = p.path
	}
	program, err := o.realRuntime(n, h, dirs)
	if err != nil {
		return wantedHandler{}, err
	}
	return wantedHandler{name: name, copyOf: h, wrapper: o.wrapperPath(name), runtime: program}, nil
}

// writeConfig writes the files that have changed.
func (o *Options) writeConfig(n *node, runtime criRuntime, p *process, edited map[*configFile]*document) (changed bool, err error) {
	for file, document := range edited {
		if file.exists && file.text == document.text {
			continue
		}
		if !changed {
			if err := o.record(n, p); err != nil {
				return false, err
			}
		}
		if _, err := n.writeFile(file.path, []byte(document.text), 0o644, runtime.tempDir(file)); err != nil {
			return changed, err
		}
		changed = true
		o.say("Changed %s.", file.path)
	}
	return changed, nil
}

func (o *Options) sayRuntimeClass() {
	if o.RuntimeClass == "" {
		return
	}
	o.say("Pods use the wrapper with runtimeClassName: %[1]s, once this is applied:\n---\n"+
		"apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: %[1]s}\nhandler: %[1]s\n---", o.RuntimeClass)
}

// warmCRIU has CRIU probe the kernel and keep what it has found in /run/criu.kdat. Each later
// restore saves that time.
func (o *Options) warmCRIU(ctx context.Context, n *node) {
	if n.lookPath("criu", nodePath) == "" {
		o.say("CRIU is not installed on the node. It is needed for checkpoints and restores.")
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := n.run(ctx, "criu", "check"); err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		o.say("criu check fails on the node, so restores may as well: %s", text)
	}
}
