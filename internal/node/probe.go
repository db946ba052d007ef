package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/runtime"
)

// A prober finds out what the node can do, and publishes it in the CheckpointNode.
type prober struct {
	client    client.Client
	apiReader client.Reader // uncached
	options   *Options

	mu      sync.Mutex
	results []probe
}

// A probe is what is known about an engine.
type probe struct {
	engine     runtime.Engine
	capability *runtime.Capability
	err        error
}

// Start probes the engines until ctx ends. A runtime or a kubelet that was restarted, or
// CRIU that was installed, is noticed with the next probe.
func (p *prober) Start(ctx context.Context) error {
	log := ctrl.LoggerFrom(ctx)
	for {
		p.probe(ctx)
		if err := p.publish(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Could not publish what the node can do; retrying", "after", p.options.ProbeInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(p.options.ProbeInterval):
		}
	}
}

// Info is what the Node says of itself.
type Info struct{ runtime atomic.Value }

// Runtime returns the CRI runtime and its version, such as "containerd://2.1.9"; "" if it
// is unknown.
func (i *Info) Runtime() string {
	name, _ := i.runtime.Load().(string)
	return name
}

func (p *prober) probe(ctx context.Context) {
	node := &corev1.Node{}
	if err := p.apiReader.Get(ctx, client.ObjectKey{Name: p.options.Node}, node); err == nil && p.options.Info != nil {
		p.options.Info.runtime.Store(node.Status.NodeInfo.ContainerRuntimeVersion)
	}
	results := make([]probe, 0, len(p.options.Engines))
	for _, e := range p.options.Engines {
		capability, err := e.Probe(ctx)
		results = append(results, probe{e, capability, err})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results = results
}

func (p *prober) get() []probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.results
}

// choose returns the engines that work and can checkpoint that many containers at one
// instant, in the order of preference.
func (p *prober) choose(containers int) ([]runtime.Engine, error) {
	var engines []runtime.Engine
	var errs []error
	for _, result := range p.get() {
		switch {
		case result.err != nil:
			errs = append(errs, fmt.Errorf("engine %s: %w", result.engine.Name(), result.err))
		case containers > 1 && !result.capability.OneInstant:
			errs = append(errs, fmt.Errorf("engine %s cannot checkpoint several containers at one instant", result.engine.Name()))
		default:
			engines = append(engines, result.engine)
		}
	}
	if len(engines) > 0 {
		return engines, nil
	}
	return nil, runtime.RetryErrorf(runtime.RuntimeNotReady, "no engine can make the checkpoint: %w", errors.Join(errs...))
}

// publish writes the CheckpointNode. Its owner is the Node: it goes with it.
func (p *prober) publish(ctx context.Context) error {
	published, err := p.getOrCreate(ctx)
	if err != nil {
		return err
	}
	handlers, problem := p.options.findHandlers(ctx)
	return kube.ChangeStatus(ctx, p.client, published, func(n *v1alpha1.CheckpointNode) {
		p.describe(n)
		p.options.describeRestores(n, handlers, problem)
	})
}

func (p *prober) getOrCreate(ctx context.Context) (*v1alpha1.CheckpointNode, error) {
	var published *v1alpha1.CheckpointNode
	if err := kube.GetIfExists(ctx, p.apiReader, client.ObjectKey{Name: p.options.Node}, &published); err != nil || published != nil {
		return published, err
	}
	node := &corev1.Node{}
	if err := p.apiReader.Get(ctx, client.ObjectKey{Name: p.options.Node}, node); err != nil {
		return nil, fmt.Errorf("reading node %s: %w", p.options.Node, err)
	}
	published = &v1alpha1.CheckpointNode{ObjectMeta: metav1.ObjectMeta{
		Name:            node.Name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
	}}
	if err := p.client.Create(ctx, published); err != nil {
		return nil, fmt.Errorf("creating CheckpointNode %s: %w", node.Name, err)
	}
	return published, nil
}

// describe writes the results of the probes into a status.
func (p *prober) describe(n *v1alpha1.CheckpointNode) {
	ready := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(runtime.RuntimeNotReady), Message: "the agent has no engine",
	}
	n.Status.Engines, n.Status.Environment, n.Status.LocalPath = nil, nil, p.options.LocalPath
	var errs []error
	for _, result := range p.get() {
		status := v1alpha1.EngineStatus{Name: result.engine.Name(), Available: result.err == nil}
		if result.err != nil {
			status.Message = kube.Truncate(result.err.Error(), kube.MessageLimit)
			errs = append(errs, fmt.Errorf("engine %s: %w", status.Name, result.err))
		} else {
			for _, step := range result.capability.Steps {
				status.Steps = append(status.Steps, string(step))
			}
			if n.Status.Environment == nil {
				n.Status.Environment = environmentOf(result.capability)
			}
		}
		n.Status.Engines = append(n.Status.Engines, status)
	}
	if n.Status.Environment != nil {
		ready.Status, ready.Reason, ready.Message = metav1.ConditionTrue, "EngineAvailable", "the node can make checkpoints"
	} else if len(errs) > 0 {
		ready.Reason, ready.Message = string(runtime.ReasonOf(errs[0])), errors.Join(errs...).Error()
	}
	kube.SetCondition(&n.Status.Conditions, n.Generation, ready)
}
