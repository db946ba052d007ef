package snapshot

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Upstream's reasons of events about the source of a snapshot.
const (
	ReasonContentCreation = "SnapshotContentCreationFailed"
	reasonClaimMissing    = "SnapshotPVCSourceMissing"
	reasonClaimFinalizer  = "ErrorPVCFinalizer"
)

// A Source is a claim of which a snapshot is to be taken, alone or in a group.
type Source struct {
	Name   string                        // the claim's
	Claim  *corev1.PersistentVolumeClaim // nil if it does not exist
	Volume *corev1.PersistentVolume      // nil if it does not exist
}

// Check returns why no snapshot can be taken, or nil.
func (s *Source) Check() *Problem {
	switch {
	case s.Claim == nil:
		return Problemf(reasonClaimMissing, "claim %s does not exist", s.Name)
	case s.Claim.DeletionTimestamp != nil && !slices.Contains(s.Claim.Finalizers, ClaimFinalizer):
		return Problemf(reasonClaimFinalizer, "claim %s is being deleted, so no snapshot of it can be taken", s.Name)
	case s.Claim.Spec.VolumeName == "" || s.Claim.Status.Phase != corev1.ClaimBound:
		return Problemf(ReasonContentCreation, "claim %s has no volume yet", s.Name)
	}
	return s.checkVolume()
}

func (s *Source) checkVolume() *Problem {
	switch {
	case s.Volume == nil:
		return Problemf(ReasonContentCreation, "PersistentVolume %s of claim %s does not exist", s.Claim.Spec.VolumeName, s.Name)
	case s.Volume.Spec.ClaimRef == nil || s.Volume.Spec.ClaimRef.UID != s.Claim.UID:
		return Problemf(ReasonContentCreation, "PersistentVolume %s is not bound to claim %s", s.Volume.Name, s.Name)
	case s.Volume.Spec.CSI == nil:
		return Problemf(ReasonContentCreation, "PersistentVolume %s of claim %s is not one of a CSI driver: snapshots can only be taken of CSI volumes", s.Volume.Name, s.Name)
	}
	return nil
}

// HasNodeAffinity reports whether the volume is accessible from some nodes only.
func (s *Source) HasNodeAffinity() bool {
	return s.Volume.Spec.NodeAffinity != nil && s.Volume.Spec.NodeAffinity.Required != nil
}

// NodesOf returns the sorted names of the nodes that match a volume's node affinity, or nil if
// it has none.
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
