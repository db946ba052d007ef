package provision

import (
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A kind is what is to be done next about a claim.
type kind int

const (
	rest   kind = iota // nothing, or it is somebody else's turn
	say                // nothing but tell the claim's owner
	begin              // put an intent on record, then carry it out
	carry              // carry out the intent that is on record, or take it off
	moveOn             // let the scheduler select another node
	take               // take the claim for this node, if it has room
)

// A step is a decision: what to do and, for say, what to tell.
type step struct {
	kind    kind
	reason  string
	message string
}

// decide holds every rule about which claims are served, and when. It does no
// I/O; each rule is a row of its test.
func decide(s seen, o *Options) step {
	if s.intent != nil {
		// Whether its claim, its class or its node are still there does not matter:
		// the driver may have been asked.
		return step{kind: carry}
	}
	switch {
	case s.claim == nil, s.claim.DeletionTimestamp != nil, s.claim.Spec.VolumeName != "":
		return step{kind: rest}
	case !o.asked(s.claim):
		return step{kind: rest}
	case s.volume != nil:
		return step{kind: rest} // It is the PV controller's turn to bind the two.
	case o.Node.elsewhere(selectedNode(s.claim)):
		return step{kind: rest} // It is that node's turn.
	}
	return decideClass(s, o)
}

// decideClass is about a claim that waits for us, or for its node.
func decideClass(s seen, o *Options) step {
	switch {
	case s.class == nil:
		return fail("StorageClass %q of the claim does not exist; the claim is served when it does", className(s.claim))
	case !o.ours(s.class.Provisioner):
		return step{kind: rest}
	case !o.serves(s.class.Name):
		return fail("StorageClass %q may not be served: it is not in --storageclass-whitelist", s.class.Name)
	case s.late() && selectedNode(s.claim) == "":
		return step{kind: rest} // It is the scheduler's turn.
	case o.Node.anyones(s.claim):
		return o.Node.decideTaking(s, o)
	}
	return decideSpec(s, o)
}

// decideSpec is about a claim of ours whose time has come.
func decideSpec(s seen, o *Options) step {
	switch {
	case s.claim.Spec.Selector != nil:
		return fail("the claim has a selector: a selector finds existing volumes, and a new one has no labels; remove it")
	case !s.creates():
		return fail("driver %s cannot create volumes: it does not announce CREATE_DELETE_VOLUME", s.info.Name)
	}
	if next := decideSource(s, o); next.kind != begin {
		return next
	}
	switch {
	case o.attributesClass(s.claim) != "" && !s.info.Has(csipb.ControllerServiceCapability_RPC_MODIFY_VOLUME):
		return fail("the claim has a VolumeAttributesClass and driver %s does not announce MODIFY_VOLUME", s.info.Name)
	case s.nodeGone():
		return step{kind: moveOn, reason: kube.ReasonProvisioningFailed, message: fmt.Sprintf(
			"node %s, which the scheduler selected, is gone: waiting for another", selectedNode(s.claim))}
	}
	return step{kind: begin}
}

// decideSource is about what the claim is to be filled from.
func decideSource(s seen, o *Options) step {
	from, ours := sourceOf(s.claim)
	switch {
	case !ours:
		return step{kind: say, reason: kube.ReasonProvisioning,
			message: "the claim's data source is not one of ours: a volume populator is expected to fill it"}
	case from == nil:
		return step{kind: begin}
	case !s.info.Has(from.capability()):
		return fail("driver %s cannot fill a volume from a %s: it does not announce %s", s.info.Name, from.Kind, from.capability())
	case from.Namespace != s.claim.Namespace && !o.CrossNamespace:
		return fail("the claim's data source is in namespace %s, and feature gate CrossNamespaceVolumeDataSource is off", from.Namespace)
	}
	return step{kind: begin}
}

// creates tells whether the driver can make volumes at all.
func (s *seen) creates() bool {
	return s.info.HasService(csipb.PluginCapability_Service_CONTROLLER_SERVICE) &&
		s.info.Has(csipb.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME)
}

// nodeGone tells whether the node is needed that the scheduler has selected,
// and is not there any more.
func (s *seen) nodeGone() bool { return s.late() && s.topological() && s.selected == nil }

func fail(format string, args ...any) step {
	return step{kind: say, reason: kube.ReasonProvisioningFailed, message: fmt.Sprintf(format, args...)}
}
