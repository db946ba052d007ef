package pending

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// SetHandle records the handle of the volume that the driver has created.
func (s *Store) SetHandle(ctx context.Context, op *Operation, handle string) error {
	op.Handle = handle
	return s.Update(ctx, op)
}

// SetFailingSince records since when the driver's calls have been failing, see
// [Operation].FailingSince.
func (s *Store) SetFailingSince(ctx context.Context, op *Operation, since time.Time) error {
	if op.FailingSince.IsZero() == since.IsZero() {
		return nil
	}
	op.FailingSince = since
	return s.Update(ctx, op)
}

// Update writes the volume's handle and since when calls fail to the operation's Lease.
// If the Lease is gone it is created again: another replica that wrongly acts as leader
// may have deleted it during the call. The whole Lease is written, because the
// permissions of csi-provisioner do not include patching Leases.
func (s *Store) Update(ctx context.Context, op *Operation) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease := &coordinationv1.Lease{}
		err := s.APIReader.Get(ctx, types.NamespacedName{Namespace: s.Namespace, Name: LeaseName(op.ClaimUID())}, lease)
		if apierrors.IsNotFound(err) {
			_, _, err = s.Write(ctx, op)
			return err
		}
		if err != nil {
			return err
		}
		if lease.Annotations[nodeAnnotation] != op.Node {
			return fmt.Errorf("Lease %s/%s is another node's now", lease.Namespace, lease.Name)
		}
		op.annotate(lease)
		return s.Client.Update(ctx, lease)
	})
	if err != nil {
		return fmt.Errorf("recording the state of volume %s: %w", op.Request.GetName(), err)
	}
	return nil
}

// annotate sets the annotations of a Lease that [Store.Update] changes.
func (op *Operation) annotate(lease *coordinationv1.Lease) {
	for key, value := range map[string]string{handleAnnotation: op.Handle, failingSinceAnnotation: formatTime(op.FailingSince)} {
		if value == "" {
			delete(lease.Annotations, key)
			continue
		}
		lease.Annotations[key] = value
	}
}

func formatTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// failingSince reads the annotation of a Lease; an invalid one counts as none.
func failingSince(lease *coordinationv1.Lease) time.Time {
	since, err := time.Parse(time.RFC3339, lease.Annotations[failingSinceAnnotation])
	if err != nil {
		return time.Time{}
	}
	return since
}
