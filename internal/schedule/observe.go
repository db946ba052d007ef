package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errInvalidSpec is returned if a schedule's spec is invalid.
var errInvalidSpec = errors.New("the spec is invalid")

// observe reads a schedule, its targets and its children from the cache or, if uncached, from
// the API server. It returns nil if the schedule does not exist or is being deleted. If the
// spec is invalid, it returns errInvalidSpec and what can be observed.
func (r *Reconciler) observe(ctx context.Context, key client.ObjectKey, uncached bool) (*state, error) {
	object := r.kind.newSchedule()
	if err := r.reader(uncached).Get(ctx, key, object); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return r.observeObject(ctx, object, uncached)
}

// observeObject observes a schedule that was read. It does not change the object.
func (r *Reconciler) observeObject(ctx context.Context, object client.Object, uncached bool) (*state, error) {
	if object.GetDeletionTimestamp() != nil {
		return nil, nil //nolint:nilnil // There is nothing to do and nothing wrong.
	}
	s := &state{schedule: r.kind.fromObject(object)}
	selector, invalid := s.parseSpec()
	all, err := r.kind.listTargets(ctx, r, object.GetNamespace(), selector, uncached)
	if err != nil {
		return nil, err
	}
	if s.children, err = r.listChildren(ctx, s.schedule, uncached); err != nil {
		return nil, err
	}
	s.serverTime = r.readClocks().server
	s.selectTargets(all, selector)
	if invalid != nil {
		return s, fmt.Errorf("%w: %w", errInvalidSpec, invalid)
	}
	return s, nil
}

// reader reads from the cache or, if uncached, from the API server.
func (r *Reconciler) reader(uncached bool) client.Reader {
	if uncached {
		return r.apiReader
	}
	return r.client
}

// selectTargets selects the schedule's targets, and finds out what became of the children's
// targets.
func (s *state) selectTargets(all []target, selector labels.Selector) {
	byName := make(map[string]*target, len(all))
	for i := range all {
		byName[all[i].Name] = &all[i]
		if selector.Matches(labels.Set(all[i].Labels)) {
			s.targets = append(s.targets, all[i])
		}
	}
	resolveTargets(s.children, byName)
}

// parseSpec parses the spec. Its errors name the field. An invalid selector selects nothing.
func (s *state) parseSpec() (labels.Selector, error) {
	selector, err := metav1.LabelSelectorAsSelector(&s.schedule.Spec.Selector)
	if err != nil {
		return labels.Nothing(), fmt.Errorf("%s: %w", s.schedule.terms.selector, err)
	}
	s.calendar, err = newCalendar(&s.schedule.Spec)
	return selector, err
}

// listChildren lists the children that the schedule has created.
func (r *Reconciler) listChildren(ctx context.Context, s *schedule, uncached bool) ([]*childState, error) {
	var err error
	list := r.kind.newChildList()
	if uncached {
		err = r.apiReader.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingLabels{uidLabel: string(s.UID)})
	} else {
		err = r.client.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingFields{bySchedule: string(s.UID)}, client.UnsafeDisableDeepCopy)
	}
	if err != nil {
		return nil, fmt.Errorf("listing the %s: %w", s.terms.children, err)
	}
	return childStatesOf(r.kind, list, r.readClocks())
}

// readClocks reads both clocks.
func (r *Reconciler) readClocks() clockReadings {
	server, known := r.serverTime()
	if !known {
		server = time.Time{}
	}
	return clockReadings{r.now(), server}
}
