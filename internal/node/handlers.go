package node

import (
	"cmp"
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/install"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/restore"
	"github.com/holdfast-io/holdfast/internal/runtime/oci"
)

// findHandlers finds out which handlers of the CRI runtime call holdfast-runtime.
func (o *Options) findHandlers(ctx context.Context) (*restore.Handlers, error) {
	status, err := install.GetStatus(ctx, install.Options{HostRoot: o.HostRoot, InstallDir: install.DefaultDir})
	if err != nil {
		return nil, fmt.Errorf("finding out what the CRI runtime calls: %w", err)
	}
	h := &restore.Handlers{Runtime: status.Runtime, Default: status.DefaultHandler, RestartRequired: status.RestartRequired}
	host := oci.Node{Root: o.HostRoot}
	for _, found := range status.Handlers {
		if found.Problem == "" && host.IsWrapper(cmp.Or(found.Wrapper, found.RealRuntime)) {
			h.Wrapped = append(h.Wrapped, found.Name)
		}
	}
	return h, nil
}

// handlers returns what findHandlers finds; nil if it cannot, which a CheckpointNode says.
func (o *Options) handlers(ctx context.Context) *restore.Handlers {
	h, err := o.findHandlers(ctx)
	if err != nil {
		ctrl.LoggerFrom(ctx).V(1).Info("Could not find out what the CRI runtime calls", "error", err.Error())
	}
	return h
}

// describeRestores writes into a status whether pods can be restored on the node.
func (o *Options) describeRestores(n *v1alpha1.CheckpointNode, h *restore.Handlers, problem error) {
	can := metav1.Condition{
		Type: v1alpha1.ConditionCanRestore, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonWrapperInstalled,
		Message: "pods with the handlers in status.restoreHandlers can be restored",
	}
	n.Status.RestoreHandlers = nil
	if h != nil {
		n.Status.RestoreHandlers = h.Wrapped
	}
	switch {
	case problem != nil:
		can.Status, can.Reason, can.Message = metav1.ConditionUnknown, v1alpha1.ReasonNoWrapper, problem.Error()
	case h.Problem(o.Node) != "":
		can.Status, can.Reason, can.Message = metav1.ConditionFalse, v1alpha1.ReasonNoWrapper, h.Problem(o.Node)
	}
	kube.SetCondition(&n.Status.Conditions, n.Generation, can)
}
