package bind

import (
	"slices"
	"strings"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// An action is what is to be done next about a VolumeGroupSnapshot.
type action int

const (
	rest    action = iota // nothing, or it is somebody else's turn
	refuse                // say why nothing can be done
	create                // protect the group, then make the content
	adopt                 // a content that was there before gets the group's UID
	follow                // make the members, and take over what the content says
	wait                  // it shall go, and something still needs it: say what
	release               // let the content go, and delete it if that is its policy
	letGo                 // nothing is left of it: let the group go
	scatter               // the group is gone: so are its members
)

type step struct {
	action  action
	problem *snapshot.Problem // why, for refuse and wait
}

// seen is all that is known about one VolumeGroupSnapshot at one moment.
type seen struct {
	group    *groupv1.VolumeGroupSnapshot        // nil if it is gone
	content  *groupv1.VolumeGroupSnapshotContent // the one that it names, or that is made for it; nil if it is not there
	class    *groupv1.VolumeGroupSnapshotClass   // nil if it names none, or it is not there
	defaults []string                            // names of the default classes of the volumes' driver, if it names none
	sources  []snapshot.Source                   // the claims that it selects, by name
	nodes    []string                            // where all of the volumes are, if that is asked for
	members  []snapshotv1.VolumeSnapshot         // those that name it as their owner
	unready  []string                            // members that are made and do not say that they are ready
	restores []string                            // claims that wait for a volume from a member, as NAMESPACE/NAME
}

// decide holds every rule about what becomes of a VolumeGroupSnapshot. It does
// no I/O; each rule is a row of its test.
func decide(s *seen, distributed bool) step {
	switch {
	case s.group == nil && len(s.members) > 0:
		return step{action: scatter}
	case s.group == nil:
		return step{action: rest}
	case s.group.DeletionTimestamp != nil:
		return decideEnd(s)
	case s.static():
		return decideStatic(s)
	case s.content != nil:
		return decideDynamic(s)
	case s.group.Status != nil && s.group.Status.CreationTime != nil:
		return step{refuse, snapshot.Problemf(reasonContentMissing, "VolumeGroupSnapshotContent %s is gone, and with it what is known of the group snapshot", s.contentName())}
	default:
		return decideCreate(s, distributed)
	}
}

// decideCreate tells whether a content can be made.
func decideCreate(s *seen, distributed bool) step {
	selector := s.group.Spec.Source.Selector
	if selector == nil {
		return step{refuse, snapshot.Problemf(reasonValidation, "the group snapshot has neither a selector of claims nor a content as its source: one of them is needed")}
	}
	if _, err := metav1.LabelSelectorAsSelector(selector); err != nil {
		return step{refuse, snapshot.Problemf(reasonValidation, "the selector of claims cannot be read: %v", err)}
	}
	if problem := s.checkSources(); problem != nil {
		return step{refuse, problem}
	}
	if problem := s.chooseClass(); problem != nil {
		return step{refuse, problem}
	}
	if distributed && len(s.nodes) == 0 {
		return step{refuse, snapshot.Problemf(reasonCreate, "no node is where all of the volumes are, so there is no driver that could cut them together")}
	}
	return step{action: create}
}

// checkSources tells all that is wrong with what is to be cut: none is left out
// in silence.
func (s *seen) checkSources() *snapshot.Problem {
	if len(s.sources) == 0 {
		return snapshot.Problemf(reasonCreate, "no claim of namespace %s has the labels that the selector asks for (%s)",
			s.group.Namespace, metav1.FormatLabelSelector(s.group.Spec.Source.Selector))
	}
	var texts, drivers []string
	for i := range s.sources {
		if problem := s.sources[i].Check(); problem != nil {
			texts = append(texts, problem.Text)
			continue
		}
		drivers = append(drivers, s.sources[i].Volume.Spec.CSI.Driver)
	}
	slices.Sort(drivers)
	if drivers = slices.Compact(drivers); len(drivers) > 1 {
		texts = append(texts, "the claims have volumes of different drivers ("+list(drivers)+"): only those of one driver can be cut together")
	}
	if len(texts) == 0 {
		return nil
	}
	return snapshot.Problemf(reasonCreate, "%s", strings.Join(texts, "; "))
}

// chooseClass finds the class: the one that the group names, else the one that is
// the default of the volumes' driver.
func (s *seen) chooseClass() *snapshot.Problem {
	choice := snapshot.Choice{
		Kind: "VolumeGroupSnapshotClass", Marks: snapshot.Group, Named: ptr.Deref(s.group.Spec.VolumeGroupSnapshotClassName, ""),
		Defaults: s.defaults, Driver: s.driver(), Claim: s.sources[0].Name, Reason: reasonClass, DefaultReason: reasonDefaultClass,
	}
	if s.class != nil {
		choice.ClassDriver = s.class.Driver
	}
	return choice.Check()
}

// decideDynamic is about a group whose content has been made for it.
func decideDynamic(s *seen) step {
	ref := s.content.Spec.VolumeGroupSnapshotRef
	switch {
	case s.content.Spec.Source.GroupSnapshotHandles != nil:
		return step{refuse, snapshot.Problemf(reasonHandleSet, "VolumeGroupSnapshotContent %s has the name of the one for this group and is of a group snapshot that was there before", s.content.Name)}
	case !s.bound():
		return step{refuse, snapshot.Problemf(reasonMisbound, "VolumeGroupSnapshotContent %s is bound to another group snapshot, %s/%s", s.content.Name, ref.Namespace, ref.Name)}
	default:
		return step{action: follow}
	}
}

// decideStatic is about a group that names a content that was there before.
func decideStatic(s *seen) step {
	name := s.contentName()
	switch {
	case s.content == nil:
		return step{refuse, snapshot.Problemf(reasonContentMissing, "VolumeGroupSnapshotContent %s is not there", name)}
	case s.content.Spec.Source.GroupSnapshotHandles == nil:
		return step{refuse, snapshot.Problemf(reasonContentMismatch, "VolumeGroupSnapshotContent %s is made from volumes: a group snapshot can only name one that has groupSnapshotHandles", name)}
	case !s.refers():
		ref := s.content.Spec.VolumeGroupSnapshotRef
		return step{refuse, snapshot.Problemf(reasonContentMisbound, "VolumeGroupSnapshotContent %s is bound to another group snapshot, %s/%s with uid %q", name, ref.Namespace, ref.Name, ref.UID)}
	case s.bound():
		return step{action: follow}
	case s.content.DeletionTimestamp != nil:
		return step{refuse, snapshot.Problemf(reasonContentMissing, "VolumeGroupSnapshotContent %s is being deleted", name)}
	default:
		return step{action: adopt}
	}
}

// decideEnd is about a group that is being deleted. It goes when nothing needs a
// member of it and its content is gone, with what is at the driver, or shall
// stay. Its members go after it.
func decideEnd(s *seen) step {
	switch {
	case !s.held():
		return step{action: rest}
	case len(s.restores) > 0:
		return step{wait, snapshot.Problemf(reasonDeletePending, "claim %s waits for a volume from a member of this group snapshot: it is deleted when the claim has its volume, or is gone", list(s.restores))}
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
