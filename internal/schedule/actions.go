package schedule

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// errNameTaken is returned if another object has the name of a child.
var errNameTaken = errors.New("exists and does not belong to this schedule: delete it")

// maxReconcileTime is after how long a reconcile stops to create rejected children or to
// delete children. The rest waits for the next reconcile. An unreachable admission webhook
// takes ten seconds for each request.
const maxReconcileTime = 10 * time.Second

// createChildren creates children in the order of the targets' turns. A rejected child does
// not take a slot from others. It returns the rejected targets and why. It appends the created
// children to s.
func (r *Reconciler) createChildren(ctx context.Context, s *state, next *step) (rejected map[string]string, err error) {
	rejected = map[string]string{}
	free, end := next.free, r.now().Add(maxReconcileTime)
	for _, p := range next.create {
		if free == 0 || len(rejected) > 0 && !r.now().Before(end) {
			break
		}
		made, err := r.createChild(ctx, s.schedule, p.target)
		switch {
		case err == nil:
			free--
			r.expectations.expect(s.schedule.key(), made.GetName())
			s.children = append(s.children, childStateOf(r.kind, made, r.readClocks()))
			r.metrics.children.WithLabelValues("created").Inc()
		case isRejection(err):
			rejected[p.target.Name] = kube.Message(err)
			r.metrics.children.WithLabelValues("refused").Inc()
		default:
			return rejected, fmt.Errorf("creating the %s of %s %s: %w", s.schedule.terms.childKind, s.schedule.terms.target, p.target.Name, err)
		}
	}
	return rejected, nil
}

// createChild creates the child of a target. It succeeds if an earlier process has
// created it.
func (r *Reconciler) createChild(ctx context.Context, s *schedule, t *target) (client.Object, error) {
	wanted := newChildFor(r.kind, s, t, s.Status.Run)
	key := client.ObjectKeyFromObject(wanted)
	err := r.client.Create(ctx, wanted)
	if !apierrors.IsAlreadyExists(err) {
		return wanted, err
	}
	existing := r.kind.newChild()
	if err := r.apiReader.Get(ctx, key, existing); err != nil {
		return nil, err
	}
	if !isSameChild(s.terms, existing, wanted) {
		return nil, fmt.Errorf("%s %s %w", s.terms.childKind, key.Name, errNameTaken)
	}
	return existing, nil
}

// isRejection reports whether an error concerns only this child, not every request to the
// API server.
func isRejection(err error) bool { return errors.Is(err, errNameTaken) || kube.IsDenied(err) }

// maxHistoriesRead is how many histories are read from the API server at a time. The children
// of a history are deleted right after it was read, and their names are in the URL.
const maxHistoriesRead = 200

// deleteChildren deletes expired children. It decides again which of their histories are
// expired, based on the API server. If one deletion fails, it continues with the others. It
// returns a message about deletions that the API server rejected.
func (r *Reconciler) deleteChildren(ctx context.Context, s *state, gone []*childState) (stuck string, err error) {
	var errs []error
	rejected, end, terms := map[string]error{}, r.now().Add(maxReconcileTime), s.schedule.terms
	for _, selector := range historySelectors(s.schedule, gone) {
		due, err := r.confirmExpired(ctx, s.schedule, selector)
		if err != nil {
			return "", errors.Join(append(errs, err)...)
		}
		for _, g := range due {
			if err := r.deleteChild(ctx, s, g); isRejection(err) {
				rejected[g.name] = err
			} else if err != nil {
				errs = append(errs, fmt.Errorf("deleting %s %s: %w", terms.childKind, g.name, err))
			}
			if !r.now().Before(end) {
				return stuckMessage(terms, rejected), errors.Join(errs...)
			}
		}
	}
	return stuckMessage(terms, rejected), errors.Join(errs...)
}

// stuckMessage returns a message about rejected deletions, or "" if there are none.
func stuckMessage(t *terms, rejected map[string]error) string {
	if len(rejected) == 0 {
		return ""
	}
	first := slices.Min(slices.Collect(maps.Keys(rejected)))
	return fmt.Sprintf("%d expired %s cannot be deleted; %s %s: %s", len(rejected), t.children, t.childKind, first, kube.Message(rejected[first]))
}

// historySelectors returns which children to read from the API server, with one request each,
// to find out which of their histories are expired. For each request the API server goes
// through all children of the namespace.
func historySelectors(s *schedule, gone []*childState) []labels.Selector {
	if len(gone) == 0 {
		return nil
	}
	own := labels.SelectorFromSet(labels.Set{uidLabel: string(s.UID)})
	if s.terms.sharedHistory {
		return []labels.Selector{own}
	}
	var all []labels.Selector
	for histories := range slices.Chunk(slices.Sorted(maps.Keys(byHistory(gone))), maxHistoriesRead) {
		of, err := labels.NewRequirement(s.terms.targetLabel, selection.In, histories)
		if err != nil {
			panic(err) // Cannot happen: the histories are values of this label.
		}
		all = append(all, own.DeepCopySelector().Add(*of))
	}
	return all
}

// confirmExpired returns which children of whole histories are expired according to the API
// server. The response also updates the API server's time.
func (r *Reconciler) confirmExpired(ctx context.Context, s *schedule, selector labels.Selector) ([]*childState, error) {
	list := r.kind.newChildList()
	if err := r.apiReader.List(ctx, list, client.InNamespace(s.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
		return nil, fmt.Errorf("listing the %s before a deletion: %w", s.terms.children, err)
	}
	at := r.readClocks()
	children, err := childStatesOf(r.kind, list, at)
	if err != nil {
		return nil, err
	}
	targets := map[string]*target{}
	for _, child := range children {
		if _, known := targets[child.targetName]; known || !child.needsTarget() {
			continue
		}
		if targets[child.targetName], err = r.kind.getTarget(ctx, r, client.ObjectKey{Namespace: s.Namespace, Name: child.targetName}); err != nil {
			return nil, err
		}
	}
	resolveTargets(children, targets)
	gone, _ := expiredInAll(children, s.Spec.Retention, at)
	return gone, nil
}

// deleteChild deletes a child unless it has changed since the decision.
func (r *Reconciler) deleteChild(ctx context.Context, s *state, expired *childState) error {
	child := r.kind.newChild()
	child.SetNamespace(s.schedule.Namespace)
	child.SetName(expired.name)
	err := r.client.Delete(ctx, child, client.Preconditions{UID: &expired.uid, ResourceVersion: &expired.resourceVersion})
	if kube.IsStale(err) {
		return nil // It has changed, and the change triggers a reconcile.
	}
	if err != nil {
		return err
	}
	for _, other := range s.children {
		other.deleting = other.deleting || other.uid == expired.uid
	}
	r.metrics.children.WithLabelValues("removed").Inc()
	return nil
}
