package snapshot

import "sigs.k8s.io/controller-runtime/pkg/client"

// OperationNames are what the metric calls the operations on a kind of snapshots.
type OperationNames struct {
	Create string // until it is cut
	Ready  string // until it can be restored from
	Delete string // until nothing of it is left
}

// Names of upstream's metric.
var (
	SingleOperations = OperationNames{OperationCreate, OperationReady, OperationDelete}
	GroupOperations  = OperationNames{"CreateGroupSnapshot", "CreateGroupSnapshotAndReady", "DeleteGroupSnapshot"}
)

// Progress is how far a snapshot is, or a group of them.
type Progress struct {
	Object         client.Object
	Operations     OperationNames
	Driver         string // empty if it is not known
	PreProvisioned bool   // it was at the driver before its object
	Created        bool
	Ready          bool
}

// Unfinished are the operations that have not ended. What was there before its
// object is not cut for it.
func (p *Progress) Unfinished() []string {
	var all []string
	if !p.Created && !p.PreProvisioned {
		all = append(all, p.Operations.Create)
	}
	if !p.Ready {
		all = append(all, p.Operations.Ready)
	}
	if p.Object.GetDeletionTimestamp() != nil {
		all = append(all, p.Operations.Delete)
	}
	return all
}

// waits are what the user waits for.
func (p *Progress) waits() []Wait {
	var all []Wait
	for _, operation := range p.Unfinished() {
		w := Wait{UID: p.Object.GetUID(), Operation: operation, RequestedAt: p.Object.GetCreationTimestamp().Time, Driver: p.Driver, PreProvisioned: p.PreProvisioned}
		if operation == p.Operations.Delete {
			w.RequestedAt = p.Object.GetDeletionTimestamp().Time
		}
		all = append(all, w)
	}
	return all
}

// ObserveStart notes what the user waits for.
func (o *OperationDurations) ObserveStart(p Progress) {
	for _, w := range p.waits() {
		o.Started(w)
	}
}

// ObserveProgress measures what has ended between two states of an object.
func (o *OperationDurations) ObserveProgress(before, now Progress) {
	unfinished := map[string]bool{}
	for _, operation := range now.Unfinished() {
		unfinished[operation] = true
	}
	for _, w := range before.waits() {
		if !unfinished[w.Operation] {
			o.Succeeded(w)
		}
	}
}

// ObserveDeletion measures what has ended with an object that was let go: its deletion, and
// what its user waited for before he wanted to have it deleted.
func (o *OperationDurations) ObserveDeletion(p Progress) {
	for _, w := range p.waits() {
		if w.Operation == p.Operations.Delete {
			o.Succeeded(w)
		} else {
			o.Cancelled(w, p.Object.GetDeletionTimestamp().Time)
		}
	}
}
