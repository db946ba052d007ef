package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

const (
	// messageLimit is what the API takes as the message of an error, in bytes.
	messageLimit = 1024
	// repeatAfter is how old an error in the status may become while the same one
	// comes again.
	repeatAfter = time.Minute
)

// setAttached says that the volume is attached, and what the node's half of the
// driver has to know.
func (r *Reconciler) setAttached(ctx context.Context, a *storagev1.VolumeAttachment, published map[string]string) error {
	metadata := map[string]any{}
	for key := range a.Status.AttachmentMetadata {
		metadata[key] = nil // Of an earlier publication, unless it is there again.
	}
	for key, value := range published {
		metadata[key] = value
	}
	return r.setStatus(ctx, a, map[string]any{"attached": true, "attachmentMetadata": metadata, "attachError": nil})
}

func (r *Reconciler) setDetached(ctx context.Context, a *storagev1.VolumeAttachment) error {
	return r.setStatus(ctx, a, map[string]any{"attached": false, "attachmentMetadata": nil, "detachError": nil})
}

// setError says why the volume is not attached, or not detached, unless that
// was said a moment ago.
func (r *Reconciler) setError(ctx context.Context, a *storagev1.VolumeAttachment, volumeError *storagev1.VolumeError) error {
	field, before := "attachError", a.Status.AttachError
	if a.DeletionTimestamp != nil {
		field, before = "detachError", a.Status.DetachError
	}
	if before != nil && before.Message == volumeError.Message && volumeError.Time.Sub(before.Time.Time) < repeatAfter {
		return nil
	}
	value := map[string]any{"message": volumeError.Message, "time": volumeError.Time, "errorCode": volumeError.ErrorCode}
	// Only if it is still the one that was seen: what failed may have been to
	// learn that the volume is attached, and then the error would stay.
	return r.patchStatus(ctx, a, map[string]any{"resourceVersion": a.ResourceVersion}, map[string]any{field: value})
}

// setStatus patches some fields of the status of the object that was seen, and
// of no namesake: an object that is another one has another UID, which cannot
// be changed.
func (r *Reconciler) setStatus(ctx context.Context, a *storagev1.VolumeAttachment, fields map[string]any) error {
	return r.patchStatus(ctx, a, map[string]any{"uid": a.UID}, fields)
}

// patchStatus patches some fields of the status on a condition.
func (r *Reconciler) patchStatus(ctx context.Context, a *storagev1.VolumeAttachment, condition, fields map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": condition, "status": fields})
	if err != nil {
		return err
	}
	return written(r.client.Status().Patch(ctx, a, client.RawPatch(types.MergePatchType, patch)), "writing the status")
}

// volumeError is an error as the status of a VolumeAttachment holds it. The code
// is there if it is the driver's (KEP-4876: the kubelet and the scheduler act
// on ResourceExhausted).
func (o *Options) volumeError(err error, now time.Time) *storagev1.VolumeError {
	e := &storagev1.VolumeError{Message: kube.Truncate(err.Error(), messageLimit), Time: metav1.NewTime(now)}
	var called *csi.Error
	if o.ErrorCodes && errors.As(err, &called) && status.Code(called) != codes.OK {
		e.ErrorCode = ptr.To(int32(called.Code))
	}
	return e
}

// isOverdue tells whether a volume should have been attached by now.
func (o *Options) isOverdue(a *storagev1.VolumeAttachment, now time.Time) bool {
	return a.DeletionTimestamp == nil && !a.Status.Attached && now.Sub(a.CreationTimestamp.Time) >= o.Timeout
}

// timeoutError adds to an error that the volume should have been attached by now.
func (o *Options) timeoutError(err error) error {
	return fmt.Errorf("%s, and still being tried: %w", o.timeoutPrefix(), err)
}

func (o *Options) timeoutPrefix() string { return fmt.Sprintf("not attached within %s", o.Timeout) }
