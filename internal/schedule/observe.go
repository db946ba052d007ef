package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/v1alpha1"
)

// errInvalidSpec is returned if a schedule's spec is invalid.
var errInvalidSpec = errors.New("the spec is invalid")

// observe reads a schedule, its claims and its snapshots from the cache or, if uncached, from
// the API server. It returns nil if the schedule does not exist or is being deleted. If the
// spec is invalid, it returns errInvalidSpec and what can be observed.
func (r *Reconciler) observe(ctx context.Context, key client.ObjectKey, uncached bool) (*state, error) {
	var from client.Reader = r.client
	if uncached {
		from = r.apiReader
	}
	s := &state{schedule: &v1alpha1.SnapshotSchedule{}}
	if err := from.Get(ctx, key, s.schedule); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if s.schedule.DeletionTimestamp != nil {
		return nil, nil //nolint:nilnil // There is nothing to do and nothing wrong.
	}
	selector, invalid := s.parseSpec()
	all, err := listClaims(ctx, from, key.Namespace)
	if err != nil {
		return nil, err
	}
	if s.snapshots, err = r.listSnapshots(ctx, s.schedule, uncached); err != nil {
		return nil, err
	}
	s.serverTime = r.readClocks().server
	s.selectClaims(all, selector)
	if invalid != nil {
		return s, fmt.Errorf("%w: %w", errInvalidSpec, invalid)
	}
	return s, nil
}

// selectClaims selects the schedule's claims, and finds out what became of the snapshots'
// claims.
func (s *state) selectClaims(all []corev1.PersistentVolumeClaim, selector labels.Selector) {
	byName := make(map[string]*corev1.PersistentVolumeClaim, len(all))
	for i := range all {
		byName[all[i].Name] = &all[i]
		if selector.Matches(labels.Set(all[i].Labels)) {
			s.claims = append(s.claims, all[i])
		}
	}
	resolveClaims(s.snapshots, byName)
}

// parseSpec parses the spec. Its errors name the field. An invalid selector selects nothing.
func (s *state) parseSpec() (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(&s.schedule.Spec.ClaimSelector)
	if err != nil {
		return labels.Nothing(), fmt.Errorf("spec.claimSelector: %w", err)
	}
	s.calendar, err = newCalendar(&s.schedule.Spec)
	return selector, err
}

// listSnapshots lists the snapshots that the schedule has created.
func (r *Reconciler) listSnapshots(ctx context.Context, s *v1alpha1.SnapshotSchedule, uncached bool) ([]*snapshotState, error) {
	var err error
	list := &snapshotv1.VolumeSnapshotList{}
	if uncached {
		err = r.apiReader.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingLabels{uidLabel: string(s.UID)})
	} else {
		err = r.client.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingFields{bySchedule: string(s.UID)}, client.UnsafeDisableDeepCopy)
	}
	if err != nil {
		return nil, fmt.Errorf("listing the snapshots: %w", err)
	}
	return snapshotStatesOf(list, r.readClocks()), nil
}

// readClocks reads both clocks.
func (r *Reconciler) readClocks() clockReadings {
	server, known := r.serverTime()
	if !known {
		server = time.Time{}
	}
	return clockReadings{r.now(), server}
}

func snapshotStatesOf(list *snapshotv1.VolumeSnapshotList, at clockReadings) []*snapshotState {
	snapshots := make([]*snapshotState, len(list.Items))
	for i := range list.Items {
		snapshots[i] = snapshotStateOf(&list.Items[i], at)
	}
	return snapshots
}

// listClaims lists the claims of a namespace.
func listClaims(ctx context.Context, from client.Reader, namespace string) ([]corev1.PersistentVolumeClaim, error) {
	all := &corev1.PersistentVolumeClaimList{}
	if err := from.List(ctx, all, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing the claims: %w", err)
	}
	return all.Items, nil
}
