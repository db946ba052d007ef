package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
)

// Handlers are those of a node's CRI runtime, as far as they matter to restores.
type Handlers struct {
	// Runtime is containerd or cri-o.
	Runtime string
	// Default is the handler of pods without a RuntimeClass; "" if it is not known.
	Default string
	// Wrapped are those that call holdfast-runtime.
	Wrapped []string
	// RestartRequired is whether the CRI runtime has to be restarted first.
	RestartRequired bool
}

// Problem returns why no pod can be restored on a node; "" if some can.
func (h *Handlers) Problem(node string) string {
	switch {
	case len(h.Wrapped) == 0:
		return fmt.Sprintf("no handler of %s calls holdfast-runtime on node %s: run holdfast node install there", h.Runtime, node)
	case h.RestartRequired:
		return fmt.Sprintf("%s does not call holdfast-runtime on node %s before it is restarted", h.Runtime, node)
	default:
		return ""
	}
}

// problemOf returns why a pod that is started anew cannot be restored; "" if it can, or if
// that is not known. Which handler a RuntimeClass names is known to the kubelet only.
func (h *Handlers) problemOf(pod *corev1.Pod, node string) string {
	if h == nil {
		return ""
	}
	problem := h.Problem(node)
	if problem == "" && pod.Spec.RuntimeClassName == nil && h.Default != "" && !slices.Contains(h.Wrapped, h.Default) {
		problem = fmt.Sprintf("the handler %s of %s, with which the pod starts, does not call holdfast-runtime on node %s, only %s does: give the pod a RuntimeClass with such a handler, or run holdfast node install",
			h.Default, h.Runtime, node, strings.Join(h.Wrapped, ", "))
	}
	return problem
}

// checkHandlers returns that the containers start without being held back: nothing on this
// node waits for tickets. It is found out before the data are fetched, and each time anew: the
// wrapper may be installed meanwhile.
func (r *Reconciler) checkHandlers(ctx context.Context, s *state) *problem {
	if !slices.ContainsFunc(s.targets(), func(c *container) bool { return c.needsData(r.now()) && c.runningID == "" }) {
		return nil
	}
	text := r.options.Handlers(ctx).problemOf(s.pod, r.options.Node)
	if text == "" {
		return nil
	}
	return &problem{reason: v1alpha1.ReasonNoWrapper, message: text + "; the containers start without the state of the Checkpoint"}
}
