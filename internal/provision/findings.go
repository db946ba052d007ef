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

// setHandle puts on record which volume the driver has made.
func (j *journal) setHandle(ctx context.Context, i *intent, handle string) error {
	i.handle = handle
	return j.note(ctx, i)
}

// setRefused puts on record since when the driver has refused the request; zero if
// its last answer left the outcome open.
func (j *journal) setRefused(ctx context.Context, i *intent, since time.Time) error {
	if i.refused.IsZero() == since.IsZero() {
		return nil
	}
	i.refused = since
	return j.note(ctx, i)
}

// note writes what was found out about an intent into its Lease. One that is not on
// record any more is put there again: a leader of the same job, who should not be
// there, may have erased it while the driver was asked. It is written as a whole,
// because the rights that the program is given include no patches of Leases.
func (j *journal) note(ctx context.Context, i *intent) error {
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		lease := &coordinationv1.Lease{}
		err := j.live.Get(ctx, types.NamespacedName{Namespace: j.namespace, Name: intentName(i.claimUID())}, lease)
		if apierrors.IsNotFound(err) {
			_, _, err = j.write(ctx, i)
			return err
		}
		if err != nil {
			return err
		}
		if lease.Annotations[nodeAnnotation] != i.node {
			return fmt.Errorf("another node has Lease %s/%s by now", lease.Namespace, lease.Name)
		}
		i.annotate(lease)
		return j.client.Update(ctx, lease)
	})
	if err != nil {
		return fmt.Errorf("recording what was found out about volume %s: %w", i.request.GetName(), err)
	}
	return nil
}

// annotate writes what was found out about an intent on its Lease.
func (i *intent) annotate(lease *coordinationv1.Lease) {
	for key, value := range map[string]string{handleAnnotation: i.handle, refusedAnnotation: stamp(i.refused)} {
		if value == "" {
			delete(lease.Annotations, key)
			continue
		}
		lease.Annotations[key] = value
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// refusedSince reads a Lease; what cannot be read says nothing.
func refusedSince(lease *coordinationv1.Lease) time.Time {
	since, err := time.Parse(time.RFC3339, lease.Annotations[refusedAnnotation])
	if err != nil {
		return time.Time{}
	}
	return since
}
