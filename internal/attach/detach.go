package attach

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// detach takes a volume away and lets the VolumeAttachment go. The status is
// written only if somebody else keeps the object: otherwise it goes with it.
func (r *Reconciler) detach(ctx context.Context, s seen) error {
	err := r.take(ctx, s.published())
	if err != nil && !s.gone(err) {
		return err
	}
	if s.kept(r.options) {
		if err := r.setDetached(ctx, s.attachment); err != nil {
			return err
		}
	}
	if err := r.letGo(ctx, s.attachment); err != nil {
		return err
	}
	r.forced.done(s.attachment.Name)
	return nil
}

// letGo takes our finalizer off.
func (r *Reconciler) letGo(ctx context.Context, a *storagev1.VolumeAttachment) error {
	return written(kube.RemoveFinalizer(ctx, r.client, a, r.options.finalizer()), "letting the VolumeAttachment go")
}

// gone tells whether an error means that there is nothing to take away: the
// driver does not know the volume, and neither does the cluster. As long as the
// PersistentVolume is there, a volume that the driver does not find is a
// problem that somebody should know of.
func (s *seen) gone(err error) bool {
	return status.Code(err) == codes.NotFound && s.spec == nil
}

// kept tells whether the VolumeAttachment stays when we let it go.
func (s *seen) kept(o *Options) bool {
	for _, f := range s.attachment.Finalizers {
		if f != o.finalizer() {
			return true
		}
	}
	return false
}
