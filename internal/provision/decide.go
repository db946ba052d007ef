package provision

import (
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// An action is the next step for a claim.
type action int

const (
	none         action = iota // nothing, or another program has to act first
	emitEvent                  // emit an event on the claim
	start                      // record an operation and execute it
	resume                     // execute the recorded operation, or delete its record
	reschedule                 // have the scheduler select another node
	claimForNode               // select this node for the claim, if it has capacity
)

// A decision is an action and the event that belongs to it, if any.
type decision struct {
	action  action
	reason  string
	message string
}

// decide has every rule about which claims get a volume from us, and when. It does no
// I/O. Each rule is a row of its test.
func decide(s state, o *Options) decision {
	if s.operation != nil {
		// Even if its claim, class or node is gone: the driver may have been called.
		return decision{action: resume}
	}
	switch {
	case s.claim == nil, s.claim.DeletionTimestamp != nil, s.claim.Spec.VolumeName != "":
		return decision{action: none}
	case !o.isOurClaim(s.claim):
		return decision{action: none}
	case s.volume != nil:
		return decision{action: none} // The PV controller binds the two.
	case o.Node.IsElsewhere(kube.SelectedNode(s.claim)):
		return decision{action: none} // That node's provisioner acts.
	}
	return decideClass(s, o)
}

// decideClass decides about a claim whose provisioner is us, by its class.
func decideClass(s state, o *Options) decision {
	switch {
	case s.class == nil:
		return failWith("StorageClass %q of the claim does not exist: waiting for it", kube.ClaimClass(s.claim))
	case !o.isOurProvisioner(s.class.Provisioner):
		return decision{action: none}
	case !o.isSelectedClass(s.class.Name):
		return failWith("StorageClass %q may not be served: it is not in --storageclass-whitelist", s.class.Name)
	case s.waitsForFirstConsumer() && kube.SelectedNode(s.claim) == "":
		return decision{action: none} // The scheduler selects a node first.
	case o.Node.IsUnassigned(s.claim):
		return decideClaiming(s, o)
	}
	return decideSpec(s, o)
}

// decideClaiming decides about a claim that any node may serve, because its class binds
// immediately and the scheduler selects none.
func decideClaiming(s state, o *Options) decision {
	if !o.Node.ImmediateBinding || !o.Node.IsAllowedBy(s.class) {
		return decision{action: none}
	}
	next := decideSpec(s, o)
	if next.action == start {
		next.action = claimForNode
	}
	return next
}

// decideSpec decides about a claim that is ours to serve now, by its spec.
func decideSpec(s state, o *Options) decision {
	switch {
	case s.claim.Spec.Selector != nil:
		return failWith("the claim has a selector: a selector finds existing volumes, and a new volume has no labels; remove it")
	case s.sizeProblem() != nil:
		return failWith("the claim requests a size that no volume can have: %v; create the claim again with a smaller size", s.sizeProblem())
	case !s.canCreate():
		return failWith("driver %s cannot create volumes: it does not announce CREATE_DELETE_VOLUME", s.info.Name)
	}
	if next := decideSource(s, o); next.action != start {
		return next
	}
	switch {
	case o.attributesClass(s.claim) != "" && !s.info.Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME):
		return failWith("the claim has a VolumeAttributesClass and driver %s does not announce MODIFY_VOLUME", s.info.Name)
	case s.isNodeGone():
		return decision{action: reschedule, reason: kube.ReasonProvisioningFailed, message: fmt.Sprintf(
			"node %s, which the scheduler selected, is gone: waiting for another one", kube.SelectedNode(s.claim))}
	}
	return decision{action: start}
}

// decideSource decides about a claim by the source of its volume.
func decideSource(s state, o *Options) decision {
	from, supported := source.Of(s.claim)
	switch {
	case !supported:
		return decision{action: emitEvent, reason: kube.ReasonProvisioning,
			message: "the claim's data source is of another kind: a volume populator is expected to fill the volume"}
	case from == nil:
		return decision{action: start}
	case !s.info.Has(from.Capability()):
		return failWith("driver %s cannot fill a volume from a %s: it does not announce %s", s.info.Name, from.Kind, from.Capability())
	case from.Namespace != s.claim.Namespace && !o.CrossNamespace:
		return failWith("the claim's data source is in namespace %s, and feature gate CrossNamespaceVolumeDataSource is off", from.Namespace)
	}
	return decision{action: start}
}

// sizeProblem returns why no driver can be asked for the size of the claim, nil if one can.
func (s *state) sizeProblem() error {
	_, err := kube.Bytes(*s.claim.Spec.Resources.Requests.Storage())
	return err
}

// canCreate reports whether the driver can create volumes.
func (s *state) canCreate() bool {
	return s.info.HasService(csipb.PluginCapability_Service_CONTROLLER_SERVICE) &&
		s.info.Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
}

// isNodeGone reports whether the volume depends on the selected node, and that node is gone.
func (s *state) isNodeGone() bool {
	return s.waitsForFirstConsumer() && s.hasTopology() && s.selected == nil
}

// failWith returns the decision to emit a warning.
func failWith(format string, args ...any) decision {
	return decision{action: emitEvent, reason: kube.ReasonProvisioningFailed, message: fmt.Sprintf(format, args...)}
}
