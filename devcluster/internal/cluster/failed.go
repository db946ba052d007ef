package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// failed is where the logs of a cluster that failed are kept: until the next
// one of that name starts or is taken down.
func (d Dir) failed() string {
	return filepath.Join(filepath.Dir(filepath.Dir(string(d))), "failed", d.Name())
}

// ForgetLogs removes what keepLogs kept.
func (d Dir) ForgetLogs() error {
	if err := os.RemoveAll(d.failed()); err != nil {
		return fmt.Errorf("removing the logs of an earlier cluster: %w", err)
	}
	return nil
}

// keepLogs moves the logs of the cluster and of its nodes to where they
// outlive it. If there are none it returns no folder.
func (d Dir) keepLogs() (string, error) {
	logs, _ := filepath.Glob(d.at("logs", "*")) // The pattern is well-formed.
	if len(logs) == 0 {
		return "", nil
	}
	if err := d.ForgetLogs(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(d.failed()), 0o755); err != nil {
		return "", fmt.Errorf("keeping the logs: %w", err)
	}
	errs := []error{os.Rename(d.at("logs"), d.failed())}
	for _, n := range d.Nodes() {
		err := os.Rename(filepath.Join(n, "var", "log"), filepath.Join(d.failed(), filepath.Base(n)))
		if !errors.Is(err, fs.ErrNotExist) { // The node did not come that far.
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("keeping the logs: %w", err)
	}
	return d.failed(), nil
}
