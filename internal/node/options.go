package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// MaxGarbage is how many bytes of garbage the agent may have in memory, less than other
// programs: it runs on every node, and most of its memory is buffers that are used again.
const MaxGarbage = 3 << 20

// Options configure the agent.
type Options struct {
	// Node is the name of the node.
	Node string
	// Engines are those that the agent may use, in the order of preference.
	Engines []runtime.Engine
	// Info receives what the Node says of itself; it may be nil.
	Info *Info
	// LocalPath is the directory in which backend local may keep data.
	LocalPath string
	// HostRoot is where the node's file system is mounted.
	HostRoot string
	// HostPID is a process in the namespaces of the node; 0 if this process is in them.
	HostPID int
	// KubeletDir is the kubelet's directory, as the node sees it.
	KubeletDir string
	// RestoreDir is the directory of the node for restores, see package ticket.
	RestoreDir string
	// Attempts is how often a dump is attempted.
	Attempts int32
	// UploadDeadline is how long a dump is kept on the node while its store cannot be used.
	UploadDeadline time.Duration
	// ProbeInterval is how often the agent finds out what the node can do.
	ProbeInterval time.Duration
	// OrphanInterval is how often the agent looks for data that belong to no Checkpoint; 0 for
	// never.
	OrphanInterval time.Duration
	// Namespace is the agent's own. The Secrets that policies name are there.
	Namespace string
	// Workers is how many Checkpoints are made concurrently.
	Workers int
	// RetryStart and RetryMax are the shortest and the longest pause before a retry.
	RetryStart, RetryMax time.Duration
}

// Validate returns all errors at once.
func (o *Options) Validate() error {
	var errs []error
	if o.Node == "" {
		errs = append(errs, errors.New("--node-name is empty: set it, or NODE_NAME by the downward API (spec.nodeName)"))
	}
	for flag, dir := range map[string]string{"--local-path": o.LocalPath, "--restore-dir": o.RestoreDir} {
		if !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("%s %q must be absolute", flag, dir))
		}
	}
	if o.Attempts < 1 {
		errs = append(errs, fmt.Errorf("--attempts %d must be at least 1", o.Attempts))
	}
	if o.Workers < 1 {
		errs = append(errs, fmt.Errorf("--worker-threads %d must be at least 1", o.Workers))
	}
	return errors.Join(append(errs, o.validateTimes())...)
}

func (o *Options) validateTimes() error {
	var errs []error
	if o.UploadDeadline < 0 {
		errs = append(errs, fmt.Errorf("--upload-deadline %s must not be negative", o.UploadDeadline))
	}
	if o.ProbeInterval <= 0 {
		errs = append(errs, fmt.Errorf("--probe-interval %s must be positive", o.ProbeInterval))
	}
	if o.OrphanInterval < 0 {
		errs = append(errs, fmt.Errorf("--orphan-interval %s must not be negative", o.OrphanInterval))
	}
	if o.RetryStart <= 0 || o.RetryMax < o.RetryStart {
		errs = append(errs, fmt.Errorf("--retry-interval-start %s must be positive and not above --retry-interval-max %s", o.RetryStart, o.RetryMax))
	}
	return errors.Join(errs...)
}
