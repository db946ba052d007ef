package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// delete deletes the data of a Checkpoint, and then its finalizer. If the store cannot be
// used, the Checkpoint stays and says why.
func (r *Reconciler) delete(ctx context.Context, c *v1alpha1.Checkpoint) error {
	if err := r.cleanUp(ctx, c); err != nil {
		return errors.Join(err, r.reportUndeleted(ctx, c, err))
	}
	return kube.WrapWriteError(kube.RemoveFinalizer(ctx, r.client, c, v1alpha1.Finalizer), "removing the finalizer")
}

// cleanUp removes everything of a Checkpoint from the node and from its store.
func (r *Reconciler) cleanUp(ctx context.Context, c *v1alpha1.Checkpoint) error {
	if err := r.staged.discard(c.UID); err != nil {
		return fmt.Errorf("removing the dumps from the node: %w", err)
	}
	return r.deleteStored(ctx, c)
}

// deleteStored deletes everything of a Checkpoint from its store. A volume of its own is
// deleted as a whole, by the checkpoint-operator.
func (r *Reconciler) deleteStored(ctx context.Context, c *v1alpha1.Checkpoint) error {
	stored := slices.DeleteFunc(slices.Clone(c.Status.Containers), func(at v1alpha1.ContainerCheckpoint) bool { return at.Location == "" })
	if len(stored) == 0 || ownsVolume(c) {
		return nil
	}
	place, err := r.stores.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	for i := range stored {
		if err := place.Delete(ctx, keyOf(c, stored[i].Name)); err != nil {
			return fmt.Errorf("deleting %s: %w", stored[i].Location, err)
		}
	}
	return nil
}

func (r *Reconciler) reportUndeleted(ctx context.Context, about *v1alpha1.Checkpoint, problem error) error {
	_, who := storageReason(problem)
	message := fmt.Sprintf("%v; the Checkpoint stays until its data are deleted, or goes without them with the annotation %s=true", problem, v1alpha1.AnnAbandonData)
	err := kube.ChangeStatus(ctx, r.client, about, func(c *v1alpha1.Checkpoint) {
		r.setReady(c, metav1.ConditionFalse, v1alpha1.ReasonDeleting, message)
		c.Status.WaitingFor = who
	})
	if err == nil {
		r.events.Warning(about, v1alpha1.ReasonDeleting, message)
	}
	return err
}
