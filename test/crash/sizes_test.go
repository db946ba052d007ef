package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

const (
	// Classes of attributes, by the value of their only parameter.
	iops         = "iops"
	gold, silver = "1000", "100"
)

// createAttributesClasses creates the environment's VolumeAttributesClasses.
func (s *environment) createAttributesClasses(t *testing.T) {
	t.Helper()
	for _, value := range []string{gold, silver} {
		s.CreateAttributesClass(t, value, map[string]string{iops: value})
	}
}

// attributesClass returns the name of a class.
func (s *environment) attributesClass(value string) string { return s.Namespace + "-" + value }

// requestSize changes the size that all wanted claims request.
func requestSize(size string) step {
	return func(ctx context.Context, r *run) {
		r.patchClaims(ctx, fmt.Sprintf(`{"spec":{"resources":{"requests":{"storage":%q}}}}`, size))
	}
}

// requestClass changes the VolumeAttributesClass that all wanted claims request.
func requestClass(class string) step {
	return func(ctx context.Context, r *run) {
		r.patchClaims(ctx, fmt.Sprintf(`{"spec":{"volumeAttributesClassName":%q}}`, r.attributesClass(class)))
	}
}

// requestSizeAndClass changes both at once.
func requestSizeAndClass(size, class string) step {
	return func(ctx context.Context, r *run) {
		r.patchClaims(ctx, fmt.Sprintf(`{"spec":{"volumeAttributesClassName":%q,"resources":{"requests":{"storage":%q}}}}`, r.attributesClass(class), size))
	}
}

// requestTooMuch requests a size that the driver rejects and, when all claims report
// that and it was called that often, a smaller one.
func requestTooMuch(size, less string, calls int) step {
	return func(ctx context.Context, r *run) {
		requestSize(size)(ctx, r)
		for until := time.Now().Add(*settleTimeout); !r.allFailed(ctx) || r.trace.count(csi.ControllerExpandVolume) < calls; time.Sleep(pollInterval) {
			if time.Now().After(until) {
				r.reportViolation(errors.New("no claim reports that the driver has no room"))
				return
			}
		}
		requestSize(less)(ctx, r)
	}
}

func (r *run) allFailed(ctx context.Context) bool {
	for _, name := range r.wantedClaims() {
		claim, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, name, metav1.GetOptions{})
		failed := func(c corev1.PersistentVolumeClaimCondition) bool {
			return c.Type == corev1.PersistentVolumeClaimControllerResizeError && c.Status == corev1.ConditionTrue
		}
		if err != nil || !slices.ContainsFunc(claim.Status.Conditions, failed) {
			return false
		}
	}
	return true
}

// patchClaims patches all wanted claims. The API server rejects a request below the
// capacity that a claim has already.
func (r *run) patchClaims(ctx context.Context, patch string) {
	for _, name := range r.wantedClaims() {
		_, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil && !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
			r.reportViolation(err)
		}
		r.trace.note("claim %s was patched: %s: %v", name, patch, err)
	}
}

// compareSizes reports claims, PersistentVolumes and volumes at the driver that differ
// in size or class, and claims with unfinished operations.
func (s *clusterState) compareSizes() (wrong []string) {
	for i := range s.claims {
		claim := &s.claims[i]
		if claim.Status.Phase != corev1.ClaimBound {
			continue
		}
		for j := range s.volumes {
			if volume := &s.volumes[j]; volume.Name == claim.Spec.VolumeName {
				wrong = append(wrong, s.sizeProblems(claim, volume)...)
			}
		}
		if st := &claim.Status; len(st.AllocatedResourceStatuses) > 0 || len(st.Conditions) > 0 || st.ModifyVolumeStatus != nil {
			wrong = append(wrong, fmt.Sprintf("claim %s has an unfinished operation: %+v", claim.Name, *st))
		}
	}
	return wrong
}

func (s *clusterState) sizeProblems(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) (wrong []string) {
	at := slices.IndexFunc(s.driverVolumes, func(v csitest.Volume) bool { return s.handle(v) == volume.Spec.CSI.VolumeHandle })
	if at < 0 {
		return nil // compare reports that.
	}
	stored := s.driverVolumes[at]
	size := claim.Status.Capacity.Storage()
	if size.Value() != stored.Bytes || volume.Spec.Capacity.Storage().Value() != stored.Bytes || size.Cmp(*claim.Spec.Resources.Requests.Storage()) < 0 {
		wrong = append(wrong, fmt.Sprintf("claim %s requests %s and has %s, its volume has %s, and the driver %d bytes",
			claim.Name, claim.Spec.Resources.Requests.Storage(), size, volume.Spec.Capacity.Storage(), stored.Bytes))
	}
	wanted, has := ptr.Deref(claim.Spec.VolumeAttributesClassName, ""), ptr.Deref(claim.Status.CurrentVolumeAttributesClassName, "")
	if wanted != has || wanted != ptr.Deref(volume.Spec.VolumeAttributesClassName, "") || wanted != s.classOf(stored) {
		wrong = append(wrong, fmt.Sprintf("claim %s wants class %q and has %q, its volume has %q, and the driver %v",
			claim.Name, wanted, has, ptr.Deref(volume.Spec.VolumeAttributesClassName, ""), stored.Mutable))
	}
	return wrong
}

// classOf returns the class whose attributes a volume has at the driver.
func (s *clusterState) classOf(at csitest.Volume) string {
	if value := at.Mutable[iops]; value != "" {
		return s.attributesClass(value)
	}
	return ""
}

// requestTarget returns what a request changes, and to which value.
func requestTarget(req any) (volume, target string) {
	switch r := req.(type) {
	case *csipb.ControllerExpandVolumeRequest:
		return "the size of " + r.GetVolumeId(), fmt.Sprint(r.GetCapacityRange().GetRequiredBytes())
	case *csipb.ControllerModifyVolumeRequest:
		return "the class of " + r.GetVolumeId(), r.GetMutableParameters()[iops]
	case *csipb.CreateSnapshotRequest:
		return "the parameters of " + r.GetName(), fmt.Sprint(r.GetParameters())
	case *csipb.CreateVolumeGroupSnapshotRequest:
		return "volumes and parameters of " + r.GetName(), fmt.Sprint(r.GetSourceVolumeIds(), r.GetParameters())
	default:
		return "", ""
	}
}

// noteOutcome records whether the caller of a request that the driver has served knows
// the outcome. For a call that outlives its caller, delayCall has recorded it, and a
// retry may have resolved it.
func (s *environment) noteOutcome(method csi.Method, req any, hit *injectedFault) {
	if hit == nil || !hit.outlivesCaller() {
		s.noteUnknownOutcome(req, hit != nil && hit.leavesOutcomeUnknown(method))
	}
}

// noteUnknownOutcome records a request whose caller does not know the outcome: only
// the driver does.
func (s *environment) noteUnknownOutcome(req any, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	volume, target := requestTarget(req)
	delete(s.unknownOutcomes, volume)
	if lost && volume != "" {
		s.unknownOutcomes[volume] = target
	}
}

// checkUnknownOutcome reports a request for another value than the one that may still
// be in progress (KEP-1790, KEP-3751).
func (s *environment) checkUnknownOutcome(req any) {
	volume, target := requestTarget(req)
	s.mu.Lock()
	before, ok := s.unknownOutcomes[volume]
	s.mu.Unlock()
	if ok && before != target {
		s.reportViolation(fmt.Errorf("%s was requested to be %s while %s may be in progress", volume, target, before))
	}
}

// maxEvents is more than a run has to emit: only a process that emits the same event
// on every retry exceeds it.
const maxEvents = 40

// countEvent counts an event.
func (s *environment) countEvent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events++
}

// checkEventCount returns an error if there were too many events.
func (s *environment) checkEventCount() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events > maxEvents {
		return fmt.Errorf("the processes have written %d events", s.events)
	}
	return nil
}
