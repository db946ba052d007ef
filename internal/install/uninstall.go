package install

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// Uninstall takes our lines out of the configuration, and then removes the wrapper. A wrapper
// that containers need stays: the shim of a container that was started through it calls it
// until the container is deleted.
func Uninstall(ctx context.Context, o Options) error {
	return o.uninstall(ctx, newNode(o.HostRoot))
}

func (o *Options) uninstall(ctx context.Context, n *node) error {
	unlock, err := o.lock(n)
	if err != nil {
		return err
	}
	defer unlock()
	runtime, p, err := o.open(ctx, n)
	if err != nil {
		return err
	}
	if err := o.checkForeign(runtime); err != nil {
		return err
	}
	reverted, err := o.revert(n, runtime, p)
	if err != nil {
		return err
	}
	if err := o.restart(ctx, n, runtime, p, reverted); err != nil {
		return err
	}
	removed, err := o.removeUnused(n, runtime)
	if err == nil && !removed && !reverted {
		o.say("Nothing to do: the wrapper is not installed.")
	}
	return err
}

// removeUnused removes the wrapper, unless somebody needs it. Either is reported.
func (o *Options) removeUnused(n *node, runtime criRuntime) (reported bool, err error) {
	p, err := o.findProcess(n) // It may have been restarted.
	if err != nil {
		return false, err
	}
	why, err := o.inUse(n, runtime, p)
	if err != nil {
		return false, err
	}
	if why != "" {
		o.say("The wrapper stays in %s: %s. Run this command again afterwards.", o.InstallDir, why)
		return true, nil
	}
	return o.removeWrappers(n)
}

// checkForeign refuses a configuration in which somebody else names the wrapper: it would not
// work without it.
func (o *Options) checkForeign(runtime criRuntime) error {
	for _, f := range runtime.configFiles() {
		if strings.Contains(f.base.text, o.wrapperPath("")) {
			return fmt.Errorf("%s names %s in a line that is not marked as ours: remove it by hand first", f.path, o.wrapperPath(""))
		}
	}
	return nil
}

// revert removes our lines.
func (o *Options) revert(n *node, runtime criRuntime, p *process) (changed bool, err error) {
	for _, f := range runtime.configFiles() {
		if !f.exists || f.base.text == f.text {
			continue
		}
		if !changed {
			if err := o.record(n, p); err != nil {
				return false, err
			}
		}
		if f.isOurs() {
			_, err = n.remove(f.path)
			o.say("Removed %s.", f.path)
		} else {
			_, err = n.writeFile(f.path, []byte(f.base.text), 0o644, runtime.tempDir(f))
			o.say("Restored %s.", f.path)
		}
		if err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

// inUse returns who still needs the wrapper, or an empty string.
func (o *Options) inUse(n *node, runtime criRuntime, p *process) (string, error) {
	needed, err := o.needsRestart(n, p)
	if err != nil {
		return "", err
	}
	if needed {
		return "the CRI runtime that runs still calls it until it is restarted", nil
	}
	if runtime.tasks() == "" {
		return "", nil
	}
	containers, err := o.containers(n, runtime.tasks())
	if err != nil || containers == 0 {
		return "", err
	}
	return fmt.Sprintf("%d containers and sandboxes were started through it, and cannot be stopped without it", containers), nil
}

// containers counts the tasks whose shims call the wrapper.
func (o *Options) containers(n *node, dir string) (int, error) {
	namespaces, err := n.glob(filepath.Join(dir, "*"))
	if err != nil {
		return 0, err
	}
	count := 0
	for _, namespace := range namespaces {
		tasks, err := n.glob(filepath.Join(namespace, "*"))
		if err != nil {
			return 0, err
		}
		for _, task := range tasks {
			text, err := n.read(filepath.Join(task, "runtime"))
			if ignoreMissing(err) != nil {
				return 0, err
			}
			if o.isWrapper(strings.TrimSpace(string(text))) {
				count++
			}
		}
	}
	return count, nil
}

// removeWrappers removes what install has written into the directory.
func (o *Options) removeWrappers(n *node) (removed bool, err error) {
	for _, pattern := range []string{wrapperName + "-*", wrapperName + ".*", "." + wrapperName + "*"} {
		found, err := n.glob(filepath.Join(o.InstallDir, pattern))
		if err != nil {
			return removed, err
		}
		for _, file := range found {
			gone, err := n.remove(file)
			if err != nil {
				return removed, err
			}
			removed = removed || gone
		}
	}
	if removed {
		o.say("Removed the wrapper from %s.", o.InstallDir)
	}
	return removed, nil
}
