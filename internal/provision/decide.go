package provision

import (
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/source"
)

// A action is what is to be done next about a claim.
type action int

const (
	none         action = iota // nothing, or it is somebody else's turn
	emitEvent                  // nothing but tell the claim's owner
	start                      // put an intent on record, then carry it out
	resume                     // carry out the intent that is on record, or take it off
	reschedule                 // let the scheduler select another node
	claimForNode               // take the claim for this node, if it has room
)

// A decision is a decision: what to do and, for say, what to tell.
type decision struct {
	action  action
	reason  string
	message string
}

// decide holds every rule about which claims are served, and when. It does no
// I/O; each rule is a row of its test.
func decide(s state, o *Options) decision {
	if s.operation != nil {
		// Whether its claim, its class or its node are still there does not matter:
		// the driver may have been asked.
		return decision{action: resume}
	}
	switch {
	case s.claim == nil, s.claim.DeletionTimestamp != nil, s.claim.Spec.VolumeName != "":
		return decision{action: none}
	case !o.isOurClaim(s.claim):
		return decision{action: none}
	case s.volume != nil:
		return decision{action: none} // It is the PV controller's turn to bind the two.
	case o.Node.IsElsewhere(kube.SelectedNode(s.claim)):
		return decision{action: none} // It is that node's turn.
	}
	return decideClass(s, o)
}

// decideClass is about a claim that waits for us, or for its node.
func decideClass(s state, o *Options) decision {
	switch {
	case s.class == nil:
		return failWith("StorageClass %q of the claim does not exist; the claim is served when it does", kube.ClaimClass(s.claim))
	case !o.isOurProvisioner(s.class.Provisioner):
		return decision{action: none}
	case !o.isSelectedClass(s.class.Name):
		return failWith("StorageClass %q may not be served: it is not in --storageclass-whitelist", s.class.Name)
	case s.waitsForFirstConsumer() && kube.SelectedNode(s.claim) == "":
		return decision{action: none} // It is the scheduler's turn.
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

// decideSpec is about a claim of ours whose time has come.
func decideSpec(s state, o *Options) decision {
	switch {
	case s.claim.Spec.Selector != nil:
		return failWith("the claim has a selector: a selector finds existing volumes, and a new one has no labels; remove it")
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
			"node %s, which the scheduler selected, is gone: waiting for another", kube.SelectedNode(s.claim))}
	}
	return decision{action: start}
}

// decideSource is about what the claim is to be filled from.
func decideSource(s state, o *Options) decision {
	from, ours := source.Of(s.claim)
	switch {
	case !ours:
		return decision{action: emitEvent, reason: kube.ReasonProvisioning,
			message: "the claim's data source is not one of ours: a volume populator is expected to fill it"}
	case from == nil:
		return decision{action: start}
	case !s.info.Has(from.Capability()):
		return failWith("driver %s cannot fill a volume from a %s: it does not announce %s", s.info.Name, from.Kind, from.Capability())
	case from.Namespace != s.claim.Namespace && !o.CrossNamespace:
		return failWith("the claim's data source is in namespace %s, and feature gate CrossNamespaceVolumeDataSource is off", from.Namespace)
	}
	return decision{action: start}
}

// canCreate tells whether the driver can make volumes at all.
func (s *state) canCreate() bool {
	return s.info.HasService(csipb.PluginCapability_Service_CONTROLLER_SERVICE) &&
		s.info.Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
}

// isNodeGone tells whether the node is needed that the scheduler has selected,
// and is not there any more.
func (s *state) isNodeGone() bool {
	return s.waitsForFirstConsumer() && s.hasTopology() && s.selected == nil
}

func failWith(format string, args ...any) decision {
	return decision{action: emitEvent, reason: kube.ReasonProvisioningFailed, message: fmt.Sprintf(format, args...)}
}
