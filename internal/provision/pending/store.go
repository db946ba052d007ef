package pending

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Options are those of a [Store].
type Options struct {
	Client    client.Client
	APIReader client.Reader // uncached
	Namespace string        // of the Leases
	Driver    string
	Node      string // whose driver is called, "" for any
	Identity  string // of this process
	// NamesCollide is whether two claims can get volumes of the same name.
	NamesCollide bool
}

// A Store records the pending operations of one driver.
type Store struct {
	Options
	active  sync.Map // names of Leases, see the package's documentation
	deleted sync.Map // UIDs of Leases
	names   reservedNames
}

// NewStore returns a store that reads the cache of a manager with [IndexLeases].
func NewStore(o Options) *Store { return &Store{Options: o} }

// Start marks a claim's operation as being worked on until done is called.
func (s *Store) Start(claim types.UID) (done func()) {
	s.active.Store(LeaseName(claim), true)
	return func() { s.active.Delete(LeaseName(claim)) }
}

// Events returns the predicate for events of Leases that start a reconcile: the
// creation of one that this process is not working on, and the deletion of those for
// which onDelete is true.
func (s *Store) Events(onDelete func(lease client.Object) bool) predicate.Funcs {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool {
			_, active := s.active.Load(e.Object.GetName())
			return !active && !s.isDeleted(e.Object)
		},
		UpdateFunc: func(event.UpdateEvent) bool { return false },
		DeleteFunc: func(e event.DeleteEvent) bool {
			s.deleted.Delete(e.Object.GetUID())
			return onDelete(e.Object)
		},
	}
}

func (s *Store) isDeleted(lease client.Object) bool {
	_, deleted := s.deleted.Load(lease.GetUID())
	return deleted
}

// Find returns the cached operation of a claim, nil for none. Claim is nil if it does
// not exist. If an earlier claim of the same name has an operation too, that one comes
// first. The error is an [InvalidError] if the operation is not to be carried out.
func (s *Store) Find(ctx context.Context, key types.NamespacedName, claim *corev1.PersistentVolumeClaim) (*Operation, error) {
	leases := &coordinationv1.LeaseList{}
	if err := s.Client.List(ctx, leases, client.InNamespace(s.Namespace), client.MatchingFields{byClaim: key.String()}); err != nil {
		return nil, fmt.Errorf("reading pending operations: %w", err)
	}
	leases.Items = slices.DeleteFunc(leases.Items, func(l coordinationv1.Lease) bool { return s.isDeleted(&l) })
	own := func(l coordinationv1.Lease) int { // 1 for the operation of this claim, 0 for an earlier one's.
		if claim != nil && l.Name == LeaseName(claim.UID) {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(leases.Items, func(a, b coordinationv1.Lease) int { return own(a) - own(b) })
	for i := range leases.Items {
		op, err := decode(&leases.Items[i], s.Driver)
		if errors.Is(err, errOtherDriver) {
			continue
		}
		if err == nil {
			err = op.validateFor(claim)
		}
		if err != nil {
			return nil, err
		}
		return op, nil
	}
	return nil, nil
}

// Write records an operation and returns the recorded one. If another process has
// recorded one for the claim before, that one is returned: its driver may have been
// called. It may be of another node, because each claim has one Lease.
func (s *Store) Write(ctx context.Context, op *Operation) (recorded *Operation, created bool, err error) {
	text, err := op.encode()
	if err != nil {
		return nil, false, err
	}
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: LeaseName(op.ClaimUID()), Labels: s.leaseLabels(op),
			Annotations: map[string]string{operationAnnotation: text, claimAnnotation: op.Claim().String(), volumeAnnotation: op.Volume.Name},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &s.Identity, AcquireTime: &metav1.MicroTime{Time: time.Now()}},
	}
	if op.Source != nil {
		lease.Annotations[sourceAnnotation] = op.Source.Key()
	}
	if s.Node != "" {
		lease.Annotations[nodeAnnotation] = s.Node
	}
	op.annotate(lease)
	err = s.Client.Create(ctx, lease)
	if apierrors.IsAlreadyExists(err) {
		recorded, err = s.Read(ctx, op.ClaimUID())
		return recorded, false, err
	}
	if err != nil {
		return nil, false, fmt.Errorf("recording the operation to create volume %s: %w", op.Request.GetName(), err)
	}
	op.Record, op.UID, op.Since, op.Node, op.FirstAttempt = client.ObjectKeyFromObject(lease), lease.UID, lease.Spec.AcquireTime.Time, s.Node, true
	return op, true, nil
}

// Read reads the operation of a claim from the API server.
func (s *Store) Read(ctx context.Context, claim types.UID) (*Operation, error) {
	lease := &coordinationv1.Lease{}
	if err := s.APIReader.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: LeaseName(claim)}, lease); err != nil {
		return nil, fmt.Errorf("reading the pending operation of claim %s: %w", claim, err)
	}
	return decode(lease, s.Driver)
}

// Delete deletes the record of an operation and releases the name of its volume. It
// succeeds too if the Lease is gone, or if a new one has its name.
func (s *Store) Delete(ctx context.Context, op *Operation) error {
	defer s.ReleaseName(op)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: op.Record.Namespace, Name: op.Record.Name}}
	s.deleted.Store(op.UID, true) // Before the cache can show the deletion.
	err := s.Client.Delete(ctx, lease, client.Preconditions{UID: &op.UID})
	if apierrors.IsConflict(err) && !s.mayExist(ctx, op) {
		err = nil
	}
	if kube.IgnoreGone(err) != nil {
		s.deleted.Delete(op.UID)
		return fmt.Errorf("deleting the record of the operation to create volume %s: %w", op.Request.GetName(), err)
	}
	return nil
}

// mayExist reports whether the record may still exist: a conflict can have other
// reasons than a new Lease of the same name.
func (s *Store) mayExist(ctx context.Context, op *Operation) bool {
	lease := &coordinationv1.Lease{}
	err := s.APIReader.Get(ctx, op.Record, lease)
	return err == nil && lease.UID == op.UID || client.IgnoreNotFound(err) != nil
}
