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

// lookupResult is what the driver's list shows about the volume of an operation. The zero
// value means that it shows nothing.
type lookupResult struct {
	handle string // of the volume, if its id was derived from the name
	absent bool   // whether the volume does not exist
}

// findInList looks for the volume of an operation in the driver's list, if the driver
// supports ListVolumes. The list has ids and no names, see [locate]. While the claim waits
// a repeated CreateVolume is cheaper than the list of all volumes. So the list is read
// only once calls have been failing for long enough to prove that a volume is absent.
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

// knownHandles returns the names of the PersistentVolumes of our driver, by volume handle.
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

// locate finds the volume of a name among the ids that the driver lists, given the ids of
// all PersistentVolumes. A volume whose id was derived from the name is the one. The
// volume is absent if each listed id is that of a PersistentVolume; or if the driver
// derives ids from names, as the PersistentVolumes show, and no id is derived from this
// name.
func locate(name, uid string, known map[string]string, listed []string) lookupResult {
	unknown := false
	for _, id := range listed {
		switch _, ok := known[id]; {
		case ok:
		case csi.DerivedFrom(id, name, uid):
			return lookupResult{handle: id}
		case strings.Contains(id, name):
			return lookupResult{} // It may be another claim's.
		default:
			unknown = true
		}
	}
	return lookupResult{absent: !unknown || namesInIDs(known)}
}

// namesInIDs reports whether each known id contains the name of its PersistentVolume.
func namesInIDs(known map[string]string) bool {
	for id, name := range known {
		if !strings.Contains(id, name) {
			return false
		}
	}
	return len(known) > 0
}
