package kubelet

import (
	"context"
	"errors"
	goruntime "runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/holdfast-io/holdfast/internal/runtime"
	"github.com/holdfast-io/holdfast/internal/runtime/cpu"
)

// probeTimeout limits a probe, which the kubelet answers at once.
const probeTimeout = 30 * time.Second

// Probe implements [runtime.Engine]. It calls for a pod whose name is impossible: the answer
// that there is no such pod proves the route, the credentials and the right. Whether the
// runtime has CRIU shows only in a real call.
func (e *Engine) Probe(ctx context.Context) (*runtime.Capability, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	mode, err := e.cgroups.Mode()
	if err != nil {
		return nil, runtime.Errorf(runtime.RuntimeNotReady, "finding the freezer of control groups: %w", err)
	}
	result := e.client.checkpoint(ctx, runtime.Container{Namespace: "default", Pod: "_", Name: "_"}, time.Second)
	var answer *runtime.Error
	switch {
	case result.err == nil:
		return nil, runtime.Errorf(runtime.EndpointMissing, "%s is no kubelet: it has a checkpoint of a pod whose name "+
			"is impossible", e.options.Address)
	case !errors.As(result.err, &answer) || answer.Reason != runtime.PodGone:
		return nil, result.err
	}
	var host unix.Utsname
	if err := unix.Uname(&host); err != nil {
		return nil, err
	}
	capability := &runtime.Capability{
		Kernel: unix.ByteSliceToString(host.Release[:]), Architecture: goruntime.GOARCH, CgroupMode: mode,
		CPUFeatures: cpu.Features(), Steps: []runtime.Step{runtime.Kubelet},
	}
	if e.options.Runtime != nil {
		capability.Runtime = e.options.Runtime()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.capability = capability
	return new(*capability), nil
}

// known returns the result of the last probe, or of one now.
func (e *Engine) known(ctx context.Context) (*runtime.Capability, error) {
	e.mu.Lock()
	capability := e.capability
	e.mu.Unlock()
	if capability != nil {
		return capability, nil
	}
	return e.Probe(ctx)
}
