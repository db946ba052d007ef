package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// wrapperConfig is the file beside the wrapper. It is read by cmd/holdfast-runtime.
type wrapperConfig struct {
	Runtime string `json:"runtime"`
	Dir     string `json:"dir"`
	Wait    string `json:"wait"`
}

// writeWrappers writes the copies of the wrapper and their configuration.
func (o *Options) writeWrappers(ctx context.Context, n *node, wanted []wantedHandler) (changed bool, err error) {
	binary, err := os.ReadFile(o.Binary)
	if err != nil {
		return false, fmt.Errorf("reading the wrapper (--binary): %w", err)
	}
	for _, w := range wanted {
		written, err := o.writeWrapper(ctx, n, w, binary)
		if err != nil {
			return changed, err
		}
		if written {
			o.say("Installed %s, which calls %s.", w.wrapper, w.runtime)
			changed = true
		}
	}
	return changed, nil
}

func (o *Options) writeWrapper(ctx context.Context, n *node, w wantedHandler, binary []byte) (changed bool, err error) {
	config, err := json.Marshal(wrapperConfig{Runtime: w.runtime, Dir: o.TicketDir, Wait: o.Wait.String()})
	if err != nil {
		return false, err
	}
	config = append(config, '\n')
	if old, err := n.read(w.wrapper); err != nil || !bytes.Equal(old, binary) {
		if err := o.tryWrapper(ctx, n, binary, config); err != nil {
			return false, err
		}
	}
	// The configuration comes first: without it the wrapper calls any runc.
	first, err := n.writeFile(w.wrapper+".json", config, 0o644, o.InstallDir)
	if err != nil {
		return false, err
	}
	second, err := n.writeFile(w.wrapper, binary, 0o755, o.InstallDir)
	return first || second, err
}

// tryWrapper runs a copy of the wrapper on the node, which passes --version on to the real
// runtime. A wrapper that does not run would keep all containers from starting.
func (o *Options) tryWrapper(ctx context.Context, n *node, binary, config []byte) (err error) {
	candidate := filepath.Join(o.InstallDir, wrapperName+".candidate")
	defer func() {
		_, problem := n.remove(candidate)
		_, another := n.remove(candidate + ".json")
		err = errors.Join(err, problem, another)
	}()
	if _, err := n.writeFile(candidate+".json", config, 0o644, o.InstallDir); err != nil {
		return err
	}
	if _, err := n.writeFile(candidate, binary, 0o755, o.InstallDir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err = n.run(ctx, candidate, "--version"); err == nil || errors.Is(err, errNoNode) {
		return nil
	}
	return fmt.Errorf("the wrapper does not run on the node, so it was not installed: is %s built for this machine, "+
		"and may programs in %s be executed there (else choose another directory with --install-dir)? %w", o.Binary, o.InstallDir, err)
}
