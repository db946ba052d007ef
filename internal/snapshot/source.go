package snapshot

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Reasons of the events about what is to be cut, upstream's.
const (
	ReasonContentCreation = "SnapshotContentCreationFailed"
	reasonClaimMissing    = "SnapshotPVCSourceMissing"
	reasonClaimFinalizer  = "ErrorPVCFinalizer"
)

// A Source is a claim that is to be cut, alone or with others.
type Source struct {
	Name   string                        // the claim's
	Claim  *corev1.PersistentVolumeClaim // nil if it is not there
	Volume *corev1.PersistentVolume      // the claim's; nil if it is not there
}

// Check tells what is wrong with it.
func (s *Source) Check() *Problem {
	switch {
	case s.Claim == nil:
		return Problemf(reasonClaimMissing, "claim %s is not there", s.Name)
	case s.Claim.DeletionTimestamp != nil && !slices.Contains(s.Claim.Finalizers, ClaimFinalizer):
		return Problemf(reasonClaimFinalizer, "claim %s is being deleted, so it cannot be cut any more", s.Name)
	case s.Claim.Spec.VolumeName == "" || s.Claim.Status.Phase != corev1.ClaimBound:
		return Problemf(ReasonContentCreation, "claim %s has no volume yet", s.Name)
	}
	return s.checkVolume()
}

func (s *Source) checkVolume() *Problem {
	switch {
	case s.Volume == nil:
		return Problemf(ReasonContentCreation, "PersistentVolume %s of claim %s is not there", s.Claim.Spec.VolumeName, s.Name)
	case s.Volume.Spec.ClaimRef == nil || s.Volume.Spec.ClaimRef.UID != s.Claim.UID:
		return Problemf(ReasonContentCreation, "PersistentVolume %s is not bound to claim %s", s.Volume.Name, s.Name)
	case s.Volume.Spec.CSI == nil:
		return Problemf(ReasonContentCreation, "PersistentVolume %s of claim %s is not one of a CSI driver: only those can be cut", s.Volume.Name, s.Name)
	}
	return nil
}

// HasNodeAffinity tells whether the volume is in some places only.
func (s *Source) HasNodeAffinity() bool {
	return s.Volume.Spec.NodeAffinity != nil && s.Volume.Spec.NodeAffinity.Required != nil
}

// NodesOf are the names of the nodes that a volume can be used on, sorted; none
// if it does not say where it is.
func NodesOf(ctx context.Context, from client.Reader, volume *corev1.PersistentVolume) ([]string, error) {
	affinity := volume.Spec.NodeAffinity
	if affinity == nil || affinity.Required == nil {
		return nil, nil
	}
	selector, err := nodeaffinity.NewNodeSelector(affinity.Required)
	if err != nil {
		return nil, fmt.Errorf("reading the node affinity of PersistentVolume %s: %w", volume.Name, err)
	}
	nodes := &corev1.NodeList{}
	if err := from.List(ctx, nodes); err != nil {
		return nil, fmt.Errorf("listing nodes: %w", err)
	}
	var names []string
	for i := range nodes.Items {
		if selector.Match(&nodes.Items[i]) {
			names = append(names, nodes.Items[i].Name)
		}
	}
	slices.Sort(names)
	return names, nil
}
