package attach

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// checksPerTimeout is how often timeoutMarker checks within one attachment
// timeout.
const checksPerTimeout = 30

// A timeoutMarker reports attachments that take longer than the timeout in
// their status. A failing attempt does so itself. The marker is for attachments
// that are still waiting for a worker, for another call about the same volume,
// or for the driver's response.
type timeoutMarker struct{ *Reconciler }

// Start checks periodically until ctx ends. It runs on the leader only.
func (c *timeoutMarker) Start(ctx context.Context) error {
	tick := time.NewTicker(max(c.options.Timeout/checksPerTimeout, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.check(ctx, time.Now()); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Reporting attachments that have timed out failed")
		}
	}
}

func (c *timeoutMarker) check(ctx context.Context, now time.Time) error {
	waiting, err := c.attachments(ctx, attachmentsByOperation, operationAttach)
	if err != nil {
		return err
	}
	var errs []error
	for i := range waiting {
		if c.options.needsTimeoutError(&waiting[i], now) {
			errs = append(errs, c.markTimedOut(ctx, waiting[i].Name, now))
		}
	}
	return errors.Join(errs...)
}

// needsTimeoutError reports whether an attachment has timed out and its status
// does not say so yet.
func (o *Options) needsTimeoutError(a *storagev1.VolumeAttachment, now time.Time) bool {
	marked := a.Status.AttachError != nil && strings.HasPrefix(a.Status.AttachError.Message, o.timeoutPrefix())
	return o.isOverdue(a, now) && !marked
}

func (c *timeoutMarker) markTimedOut(ctx context.Context, name string, now time.Time) error {
	s, err := c.observe(ctx, c.client, name)
	if err != nil || s.attachment == nil || !c.options.needsTimeoutError(s.attachment, now) {
		return err
	}
	why := errors.New("the driver has not responded yet")
	if before := s.attachment.Status.AttachError; before != nil {
		why = errors.New(before.Message)
	} else if !s.hasFinalizer(c.options) {
		why = errors.New("it is still queued")
	}
	timedOut := c.options.volumeError(c.options.timeoutError(why), now)
	if before := s.attachment.Status.AttachError; before != nil {
		timedOut.ErrorCode = before.ErrorCode
	}
	c.events.Warning(s.eventTarget(), kube.ReasonFailedAttach,
		fmt.Sprintf("%s on node %s: %s", volumeName(s.attachment), s.attachment.Spec.NodeName, timedOut.Message))
	timeouts.Inc()
	ctrl.LoggerFrom(ctx).Info("Attaching a volume has timed out; still trying", "volumeAttachment", name, "node", s.attachment.Spec.NodeName)
	if err := c.setError(ctx, s.attachment, timedOut); !kube.IsConflict(err) {
		return err
	}
	return nil
}
