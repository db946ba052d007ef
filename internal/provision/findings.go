package provision

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// This file is what is on record of an intent beside the request: what the driver
// has answered so far that matters for what may be left at the storage.

// SetHandle puts on record which volume the driver has made.
func (j *Store) SetHandle(ctx context.Context, op *Operation, handle string) error {
	op.Handle = handle
	return j.Update(ctx, op)
}

// SetFailingSince puts on record since when the driver has refused the request; zero if
// its last answer left the outcome open.
func (j *Store) SetFailingSince(ctx context.Context, op *Operation, since time.Time) error {
	if op.FailingSince.IsZero() == since.IsZero() {
		return nil
	}
	op.FailingSince = since
	return j.Update(ctx, op)
}

// Update writes what was found out about an intent into its Lease. One that is not on
// record any more is put there again: a leader of the same job, who should not be
// there, may have erased it while the driver was asked. It is written as a whole,
// because the rights that the program is given include no patches of Leases.
func (j *Store) Update(ctx context.Context, op *Operation) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease := &coordinationv1.Lease{}
		err := j.apiReader.Get(ctx, types.NamespacedName{Namespace: j.namespace, Name: LeaseName(op.ClaimUID())}, lease)
		if apierrors.IsNotFound(err) {
			_, _, err = j.Write(ctx, op)
			return err
		}
		if err != nil {
			return err
		}
		if lease.Annotations[nodeAnnotation] != op.Node {
			return fmt.Errorf("another node has Lease %s/%s by now", lease.Namespace, lease.Name)
		}
		op.annotate(lease)
		return j.client.Update(ctx, lease)
	})
	if err != nil {
		return fmt.Errorf("recording what was found out about volume %s: %w", op.Request.GetName(), err)
	}
	return nil
}

// annotate writes what was found out about an intent on its Lease.
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

// failingSince reads a Lease; what cannot be read says nothing.
func failingSince(lease *coordinationv1.Lease) time.Time {
	since, err := time.Parse(time.RFC3339, lease.Annotations[failingSinceAnnotation])
	if err != nil {
		return time.Time{}
	}
	return since
}
