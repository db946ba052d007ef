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

	"github.com/holdfast-io/holdfast/internal/csi/csitest"
)

// Classes of attributes, by the value of their one parameter.
const (
	iops         = "iops"
	gold, silver = "1000", "100"
)

// offerClasses makes the stage's VolumeAttributesClasses.
func (s *stage) offerClasses(t *testing.T) {
	t.Helper()
	for _, value := range []string{gold, silver} {
		s.CreateAttributesClass(t, value, map[string]string{iops: value})
	}
}

// class is the name of a class.
func (s *stage) class(value string) string { return s.Namespace + "-" + value }

// request changes how much all wanted claims request.
func request(size string) act {
	return func(ctx context.Context, r *run) {
		r.edit(ctx, fmt.Sprintf(`{"spec":{"resources":{"requests":{"storage":%q}}}}`, size))
	}
}

// want changes which class all wanted claims want.
func want(class string) act {
	return func(ctx context.Context, r *run) {
		r.edit(ctx, fmt.Sprintf(`{"spec":{"volumeAttributesClassName":%q}}`, r.class(class)))
	}
}

// growAndWant does both at once.
func growAndWant(size, class string) act {
	return func(ctx context.Context, r *run) {
		r.edit(ctx, fmt.Sprintf(`{"spec":{"volumeAttributesClassName":%q,"resources":{"requests":{"storage":%q}}}}`, r.class(class), size))
	}
}

// requestInVain requests what cannot be had and, when that has been told, less.
func requestInVain(size, less string) act {
	return func(ctx context.Context, r *run) {
		request(size)(ctx, r)
		for until := time.Now().Add(*patience); !r.allRefused(ctx); time.Sleep(pulse) {
			if time.Now().After(until) {
				r.complain(errors.New("nobody was told that there is no room"))
				return
			}
		}
		request(less)(ctx, r)
	}
}

func (r *run) allRefused(ctx context.Context) bool {
	for _, name := range r.names() {
		claim, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Get(ctx, name, metav1.GetOptions{})
		refused := func(c corev1.PersistentVolumeClaimCondition) bool {
			return c.Type == corev1.PersistentVolumeClaimControllerResizeError && c.Status == corev1.ConditionTrue
		}
		if err != nil || !slices.ContainsFunc(claim.Status.Conditions, refused) {
			return false
		}
	}
	return true
}

// edit patches all wanted claims. The API server takes no request that is below
// what a claim has already.
func (r *run) edit(ctx context.Context, patch string) {
	for _, name := range r.names() {
		_, err := r.Client.CoreV1().PersistentVolumeClaims(r.Namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		if err != nil && !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) {
			r.complain(err)
		}
		r.trace.note("claim %s was edited: %s: %v", name, patch, err)
	}
}

// compareSizes tells which claims, PersistentVolumes and volumes at the driver
// do not agree about size and class, and what is left to do about them.
func (s *state) compareSizes() (wrong []string) {
	for i := range s.claims {
		claim := &s.claims[i]
		if claim.Status.Phase != corev1.ClaimBound {
			continue
		}
		for j := range s.volumes {
			if volume := &s.volumes[j]; volume.Name == claim.Spec.VolumeName {
				wrong = append(wrong, s.disagreement(claim, volume)...)
			}
		}
		if st := &claim.Status; len(st.AllocatedResourceStatuses) > 0 || len(st.Conditions) > 0 || st.ModifyVolumeStatus != nil {
			wrong = append(wrong, fmt.Sprintf("claim %s is not done with: %+v", claim.Name, *st))
		}
	}
	return wrong
}

func (s *state) disagreement(claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) (wrong []string) {
	at := slices.IndexFunc(s.stored, func(v csitest.Volume) bool { return s.handle(v) == volume.Spec.CSI.VolumeHandle })
	if at < 0 {
		return nil // Which is told elsewhere.
	}
	stored := s.stored[at]
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

// classOf is the class whose attributes a volume has at the driver.
func (s *state) classOf(at csitest.Volume) string {
	if value := at.Mutable[iops]; value != "" {
		return s.class(value)
	}
	return ""
}

// targetOf is the volume of a request that changes it, and to what.
func targetOf(req any) (volume, target string) {
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

// noteUnsure keeps a request whose caller did not learn how it ended: only the
// driver knows.
func (s *stage) noteUnsure(req any, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	volume, target := targetOf(req)
	delete(s.unsure, volume)
	if lost && volume != "" {
		s.unsure[volume] = target
	}
}

// compareWithUnsure complains of a request for something else than what may
// still be under way (KEP-1790, KEP-3751).
func (s *stage) compareWithUnsure(req any) {
	volume, target := targetOf(req)
	s.mu.Lock()
	before, ok := s.unsure[volume]
	s.mu.Unlock()
	if ok && before != target {
		s.complain(fmt.Errorf("%s was to be %s while %s may be under way", volume, target, before))
	}
}

// mostEvents is more than a run has to tell: a process that tells the same with
// every retry comes to more.
const mostEvents = 40

// told counts an event.
func (s *stage) told() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events++
}

// storm is what is wrong about the number of events.
func (s *stage) storm() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events > mostEvents {
		return fmt.Errorf("the processes have written %d events", s.events)
	}
	return nil
}
