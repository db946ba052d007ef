package snapshot

import "sigs.k8s.io/controller-runtime/pkg/client"

// OperationNames are the metric's names of the operations on a kind of snapshots.
type OperationNames struct {
	Create string // until it is taken
	Ready  string // until it can be restored from
	Delete string // until it is deleted
}

// Names of upstream's metric.
var (
	SingleOperations = OperationNames{OperationCreate, OperationReady, OperationDelete}
	GroupOperations  = OperationNames{"CreateGroupSnapshot", "CreateGroupSnapshotAndReady", "DeleteGroupSnapshot"}
)

// Progress is the state of a snapshot or a group snapshot.
type Progress struct {
	Object         client.Object
	Operations     OperationNames
	Driver         string // empty if unknown
	PreProvisioned bool
	Created        bool
	Ready          bool
}

// Unfinished returns the operations that have not ended. A pre-provisioned snapshot has no
// create operation.
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

// waits returns what the user waits for.
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

// ObserveStart remembers that the operations of a snapshot have started.
func (o *OperationDurations) ObserveStart(p Progress) {
	for _, w := range p.waits() {
		o.Started(w)
	}
}

// ObserveProgress records the operations that ended between two states of an object.
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

// ObserveDeletion records the operations that ended when an object's finalizer was removed:
// its deletion, and those that the deletion cancelled.
func (o *OperationDurations) ObserveDeletion(p Progress) {
	for _, w := range p.waits() {
		if w.Operation == p.Operations.Delete {
			o.Succeeded(w)
		} else {
			o.Cancelled(w, p.Object.GetDeletionTimestamp().Time)
		}
	}
}
