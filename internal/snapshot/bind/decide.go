package bind

import (
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An action is what is to be done next about a VolumeSnapshot.
type action int

const (
	rest    action = iota // nothing, or it is somebody else's turn
	refuse                // say why nothing can be done
	create                // protect snapshot and claim, then make the content
	adopt                 // a content that was there before gets the snapshot's UID
	follow                // take over what the content says
	wait                  // it shall go, and something still needs it: say what
	release               // let the content go, and delete it if that is its policy
	letGo                 // nothing is left of it: let the snapshot go
)

type step struct {
	action  action
	problem *snapshot.Problem // why, for refuse and wait
}

// seen is all that is known about one VolumeSnapshot at one moment.
type seen struct {
	snapshot *snapshotv1.VolumeSnapshot
	content  *snapshotv1.VolumeSnapshotContent // the one that it names, or that is made for it; nil if it is not there
	class    *snapshotv1.VolumeSnapshotClass   // nil if it names none, or it is not there
	defaults []string                          // names of the default classes of the volume's driver, if it names none
	claim    *corev1.PersistentVolumeClaim     // its source; nil if it is not there
	volume   *corev1.PersistentVolume          // the claim's
	restores []string                          // claims that wait for a volume from it, as NAMESPACE/NAME
	group    string                            // the VolumeGroupSnapshot that it is a member of, if that is there
	node     string                            // where the volume is, if that is asked for
}

// decide holds every rule about what becomes of a VolumeSnapshot. It does no
// I/O; each rule is a row of its test.
func decide(s *seen, o *Options) step {
	switch {
	case s.snapshot == nil:
		return step{action: rest}
	case s.snapshot.DeletionTimestamp != nil:
		return decideEnd(s)
	case s.static():
		return decideStatic(s)
	case s.content != nil:
		return decideDynamic(s)
	case s.cutBefore():
		return step{refuse, snapshot.Problemf(reasonContentMissing, "VolumeSnapshotContent %s is gone, and with it what is known of the snapshot", s.contentName())}
	default:
		return decideCreate(s, o)
	}
}

// decideCreate tells whether a content can be made.
func decideCreate(s *seen, o *Options) step {
	if s.member() {
		return step{action: rest} // Its group's controller makes the content.
	}
	if problem := s.source(); problem != nil {
		return step{refuse, problem}
	}
	if problem := s.chooseClass(); problem != nil {
		return step{refuse, problem}
	}
	if o.Distributed && s.node == "" && s.placed() {
		return step{refuse, snapshot.Problemf(reasonContentCreation, "no node is where volume %s is, so there is no driver that could cut it", s.volume.Name)}
	}
	return step{action: create}
}

// source tells what is wrong with what is to be cut.
func (s *seen) source() *snapshot.Problem {
	name := ptr.Deref(s.snapshot.Spec.Source.PersistentVolumeClaimName, "")
	if name == "" {
		return snapshot.Problemf(reasonValidation, "the snapshot names neither a claim nor a content as its source: one of them is needed")
	}
	return (&snapshot.Source{Name: name, Claim: s.claim, Volume: s.volume}).Check()
}

// chooseClass finds the class: the one that the snapshot names, else the one
// that is the default of the volume's driver.
func (s *seen) chooseClass() *snapshot.Problem {
	choice := snapshot.Choice{
		Kind: "VolumeSnapshotClass", Marks: snapshot.Single, Named: ptr.Deref(s.snapshot.Spec.VolumeSnapshotClassName, ""),
		Defaults: s.defaults, Driver: s.volume.Spec.CSI.Driver, Claim: s.claim.Name, Reason: reasonClass, DefaultReason: reasonDefaultClass,
	}
	if s.class != nil {
		choice.ClassDriver = s.class.Driver
	}
	return choice.Check()
}

// decideDynamic is about a snapshot whose content has been made for it.
func decideDynamic(s *seen) step {
	ref := s.content.Spec.VolumeSnapshotRef
	switch {
	case s.member() && s.refers():
		return step{action: follow}
	case s.content.Spec.Source.SnapshotHandle != nil:
		return step{refuse, snapshot.Problemf(reasonHandleSet, "VolumeSnapshotContent %s has the name of the one for this snapshot and is of a snapshot that was there before", s.content.Name)}
	case !s.bound():
		return step{refuse, snapshot.Problemf(reasonMisbound, "VolumeSnapshotContent %s is bound to another snapshot, %s/%s", s.content.Name, ref.Namespace, ref.Name)}
	default:
		return step{action: follow}
	}
}

// decideStatic is about a snapshot that names a content that was there before.
func decideStatic(s *seen) step {
	name := s.contentName()
	switch {
	case s.content == nil:
		return step{refuse, snapshot.Problemf(reasonContentMissing, "VolumeSnapshotContent %s is not there", name)}
	case s.content.Spec.Source.SnapshotHandle == nil && !s.memberContent():
		return step{refuse, snapshot.Problemf(reasonContentMismatch, "VolumeSnapshotContent %s is made from a volume: a snapshot can only name one that has a snapshotHandle", name)}
	case !s.refers():
		ref := s.content.Spec.VolumeSnapshotRef
		return step{refuse, snapshot.Problemf(reasonContentMisbound, "VolumeSnapshotContent %s is bound to another snapshot, %s/%s with uid %q", name, ref.Namespace, ref.Name, ref.UID)}
	case s.content.Spec.VolumeSnapshotRef.UID == "" && s.content.DeletionTimestamp != nil:
		return step{refuse, snapshot.Problemf(reasonContentMissing, "VolumeSnapshotContent %s is being deleted", name)}
	case s.content.Spec.VolumeSnapshotRef.UID == "":
		return step{action: adopt}
	default:
		return step{action: follow}
	}
}

// decideEnd is about a snapshot that is being deleted. It goes when nothing
// needs it and its content is gone, with what is at the driver, or shall stay.
func decideEnd(s *seen) step {
	if !s.held() {
		return step{action: rest}
	}
	if problem := s.users(); problem != nil {
		return step{wait, problem}
	}
	switch {
	case !s.bound():
		return step{action: letGo}
	case s.permitted() && s.retained():
		return step{action: letGo}
	case s.permitted() && s.content.DeletionTimestamp != nil:
		return step{action: rest} // The driver's half has its turn. That it is done is an event.
	default:
		return step{action: release}
	}
}

// users tells what still needs a snapshot that is being deleted; nil if nothing
// does. Claims that wait for a volume from it need it, for not every provisioner may
// write its finalizer on it; one that has may restore for a claim that the cache
// does not show yet.
func (s *seen) users() *snapshot.Problem {
	switch {
	case len(s.restores) > 0:
		return snapshot.Problemf(reasonDeletePending, "claim %s waits for a volume from this snapshot: it is deleted when the claim has its volume, or is gone", list(s.restores))
	case s.restored():
		return snapshot.Problemf(reasonDeletePending, "a provisioner restores this snapshot: it is deleted when that takes finalizer %s off", kube.SnapshotSourceFinalizer)
	case s.group != "":
		return snapshot.Problemf(reasonDeletePending, "the snapshot is part of VolumeGroupSnapshot %s: it is deleted with that", s.group)
	default:
		return nil
	}
}
