package provision

import (
	"context"
	"fmt"
	"strings"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
)

// lookupResult is what a driver's list says about the volume of an intent. The zero
// value is that it says nothing.
type lookupResult struct {
	handle string // of the volume, if its id has the name in it
	absent bool   // there is none
}

// findInList looks for the volume of an intent in the driver's list, if it has one. The
// list has ids only, no names; what that says see [locate]. While the claim waits,
// asking for the volume again is cheaper than all of a driver's volumes, and only
// what is certain by then is of use.
func (r *Reconciler) findInList(ctx context.Context, s state, op *pending.Operation) (lookupResult, error) {
	settled := time.Since(op.FailingSince) >= r.driver.SettleTime()
	if !r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_LIST_VOLUMES) || s.isWanted(op) && !settled {
		return lookupResult{}, nil
	}
	known, err := r.knownHandles(ctx)
	if err != nil {
		return lookupResult{}, err
	}
	var listed []string
	for entry, err := range r.driver.ListVolumes(ctx, 0) {
		if err != nil {
			return lookupResult{}, fmt.Errorf("looking for volume %s in the driver's list: %w", op.Request.GetName(), err)
		}
		listed = append(listed, entry.GetVolume().GetVolumeId())
	}
	found := locate(op.Request.GetName(), string(op.ClaimUID()), known, listed)
	found.absent = found.absent && settled
	return found, nil
}

// knownHandles are the ids of the driver's volumes that have a PersistentVolume, by
// that one's name.
func (r *Reconciler) knownHandles(ctx context.Context) (map[string]string, error) {
	all := &corev1.PersistentVolumeList{}
	if err := r.client.List(ctx, all, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing PersistentVolumes: %w", err)
	}
	known := map[string]string{}
	for n := range all.Items {
		if v := &all.Items[n]; v.Spec.CSI != nil && v.Spec.CSI.Driver == r.options.Driver {
			known[v.Spec.CSI.VolumeHandle] = v.Name
		}
	}
	return known, nil
}

// locate tells where the volume of a name is, by the ids that a driver lists and
// those that PersistentVolumes have. One whose id was made from the name is it. It is
// absent if every listed id is some PersistentVolume's; or if the driver makes ids from
// names, as those of the PersistentVolumes show, and none is made from this one.
func locate(name, uid string, known map[string]string, listed []string) lookupResult {
	unknown := false
	for _, id := range listed {
		switch _, ok := known[id]; {
		case ok:
		case csi.DerivedFrom(id, name, uid):
			return lookupResult{handle: id}
		case strings.Contains(id, name):
			return lookupResult{} // It may be that of another claim.
		default:
			unknown = true
		}
	}
	return lookupResult{absent: !unknown || namesInIDs(known)}
}

// namesInIDs tells whether all ids that are known have the names of their
// PersistentVolumes in them.
func namesInIDs(known map[string]string) bool {
	for id, name := range known {
		if !strings.Contains(id, name) {
			return false
		}
	}
	return len(known) > 0
}
