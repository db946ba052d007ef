package attach

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// repeatAfter is the age at which the same error is written again with a
	// new time.
	repeatAfter = time.Minute
)

// setAttached sets attached in the status, with the publish context that the
// driver needs on the node.
func (r *Reconciler) setAttached(ctx context.Context, a *storagev1.VolumeAttachment, published map[string]string) error {
	metadata := map[string]any{}
	for key := range a.Status.AttachmentMetadata {
		metadata[key] = nil // Remove keys of an earlier publication, unless they are set again below.
	}
	for key, value := range published {
		metadata[key] = value
	}
	return r.setStatus(ctx, a, map[string]any{"attached": true, "attachmentMetadata": metadata, "attachError": nil})
}

func (r *Reconciler) setDetached(ctx context.Context, a *storagev1.VolumeAttachment) error {
	return r.setStatus(ctx, a, map[string]any{"attached": false, "attachmentMetadata": nil, "detachError": nil})
}

// setError writes why the volume is not attached or not detached, unless the
// same error was written a moment ago.
func (r *Reconciler) setError(ctx context.Context, a *storagev1.VolumeAttachment, volumeError *storagev1.VolumeError) error {
	field, before := "attachError", a.Status.AttachError
	if a.DeletionTimestamp != nil {
		field, before = "detachError", a.Status.DetachError
	}
	if before != nil && before.Message == volumeError.Message && volumeError.Time.Sub(before.Time.Time) < repeatAfter {
		return nil
	}
	value := map[string]any{"message": volumeError.Message, "time": volumeError.Time, "errorCode": volumeError.ErrorCode}
	// Only if the object is unchanged. The failed request may have set attached
	// although its response was lost, and then the error would stay.
	err := kube.PatchStatusIfUnchanged(ctx, r.client, a, map[string]any{field: value})
	return kube.WrapWriteError(err, "writing the status")
}

// setStatus patches fields of the status if the object is still the same one.
// The UID is immutable, so the patch fails for another object of the same name.
func (r *Reconciler) setStatus(ctx context.Context, a *storagev1.VolumeAttachment, fields map[string]any) error {
	return kube.WrapWriteError(kube.PatchStatus(ctx, r.client, a, fields), "writing the status")
}

// volumeError converts an error to the form of a VolumeAttachment's status. It
// has a code if the driver returned one (KEP-4876: the kubelet and the
// scheduler act on ResourceExhausted).
func (o *Options) volumeError(err error, now time.Time) *storagev1.VolumeError {
	e := &storagev1.VolumeError{Message: kube.Truncate(kube.Message(err), kube.MessageLimit), Time: metav1.NewTime(now)}
	var called *csi.Error
	if o.ErrorCodes && errors.As(err, &called) && status.Code(called) != codes.OK {
		e.ErrorCode = ptr.To(int32(called.Code))
	}
	return e
}

// isOverdue reports whether a volume should be attached by now.
func (o *Options) isOverdue(a *storagev1.VolumeAttachment, now time.Time) bool {
	return a.DeletionTimestamp == nil && !a.Status.Attached && now.Sub(a.CreationTimestamp.Time) >= o.Timeout
}

// timeoutError adds to an error that attaching has timed out.
func (o *Options) timeoutError(err error) error {
	return fmt.Errorf("%s, and still being tried: %w", o.timeoutPrefix(), err)
}

// timeoutPrefix begins the messages of attachments that have timed out.
func (o *Options) timeoutPrefix() string { return fmt.Sprintf("not attached within %s", o.Timeout) }
