package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// record remembers which process of the CRI runtime was running before the configuration was
// changed: as long as it runs, the change has no effect.
func (o *Options) record(n *node, p *process) error {
	path := o.recordPath()
	if p == nil {
		_, err := n.remove(path)
		return err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = n.writeFile(path, append(data, '\n'), 0o644, o.InstallDir)
	return err
}

func (o *Options) recordPath() string {
	return filepath.Join(o.InstallDir, wrapperName+".changed.json")
}

// needsRestart reports whether the process was started before the configuration was changed.
func (o *Options) needsRestart(n *node, p *process) (bool, error) {
	data, err := n.read(o.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	before := &process{}
	if err == nil {
		err = json.Unmarshal(data, before)
	}
	if err != nil {
		return false, fmt.Errorf("reading %s (delete it after a restart of the CRI runtime): %w", o.recordPath(), err)
	}
	return before.same(p), nil
}

// restart restarts the CRI runtime if that was asked for, or says what to do.
func (o *Options) restart(ctx context.Context, n *node, runtime criRuntime, p *process, changed bool) error {
	needed, err := o.needsRestart(n, p)
	if err != nil || !needed && (p != nil || !changed) {
		return err
	}
	unit := ""
	if p != nil {
		unit = n.unit(p)
	}
	if unit == "" {
		unit = map[string]string{containerdName: "containerd.service", crioName: "crio.service"}[runtime.name()]
	}
	if !o.Restart {
		o.say("Restart the CRI runtime on the node, so that it reads its configuration: systemctl restart %s\n"+
			"Running containers run on.", unit)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := n.run(ctx, "systemctl", "restart", unit); err != nil {
		return fmt.Errorf("restarting %s: %w", unit, err)
	}
	o.say("Restarted %s.", unit)
	return nil
}
