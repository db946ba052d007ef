package snapshot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// repeatErrorAfter is how long an error is not written again if only its text differs: many
// drivers put a request ID into it.
const repeatErrorAfter = 10 * time.Minute

// A Problem is something that users or administrators must fix. It is written to the status
// of their object, like the errors of drivers, and like requests that the API server denies.
// Its other errors are not: users cannot do anything about them.
type Problem struct {
	// Reason is the event's reason.
	Reason string
	Text   string
}

// Error implements error.
func (p *Problem) Error() string { return p.Text }

// Problemf formats a Problem.
func Problemf(reason, format string, args ...any) *Problem {
	return &Problem{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// UserMessage returns the text of an error for users, or "" if it does not concern them. For
// a driver's error, it says whether retrying can help.
func UserMessage(err error) string {
	var (
		problem   *Problem
		driverErr *csi.Error
	)
	switch {
	case errors.As(err, &driverErr) && Terminal(driverErr):
		return limited(err, " (terminal: it stays until something is changed)")
	case errors.As(err, &driverErr):
		return limited(err, " (transient: it is retried)")
	case errors.As(err, &problem):
		return limited(err, "")
	case kube.IsDenied(err):
		return kube.Truncate(kube.Message(err), kube.MessageLimit)
	default:
		return ""
	}
}

// limited returns the text of an error and a suffix, as it fits into a status.
func limited(err error, suffix string) string {
	return kube.Truncate(err.Error(), kube.MessageLimit-len(suffix)) + suffix
}

// Terminal reports whether an error says that the same request will never succeed unless
// something is changed. It is still retried, slowly: some drivers return such codes wrongly.
func Terminal(err *csi.Error) bool {
	switch err.Code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.Unimplemented, codes.OutOfRange, codes.DataLoss:
		return true
	default:
		return false
	}
}

// IsNewError reports whether an error differs from the one in the status. For a driver's
// error, the code is compared, not the text, and for a denied request what was requested:
// webhooks, too, put details into their texts that differ each time.
func IsNewError(before *snapshotv1.VolumeSnapshotError, err error, now time.Time) bool {
	text := UserMessage(err)
	if text == "" || before == nil || before.Message == nil {
		return text != ""
	}
	if *before.Message == text {
		return false
	}
	if same := errorPrefix(err); same == "" || !strings.HasPrefix(*before.Message, same) {
		return true
	}
	return before.Time == nil || now.Sub(before.Time.Time) > repeatErrorAfter
}

// errorPrefix returns what two errors have in common that only differ in details, or "" for
// an error without such details: the code of a driver's error, or the request that the API
// server denies.
func errorPrefix(err error) string {
	var driverErr *csi.Error
	var problem *Problem
	switch {
	case errors.As(err, &driverErr):
		return fmt.Sprintf("driver %s: %s: %s", driverErr.Driver, driverErr.Method, driverErr.Code)
	case errors.As(err, &problem) || !kube.IsDenied(err):
		return ""
	}
	what, _, _ := strings.Cut(err.Error(), ": ")
	return what + ": "
}

// CopyError returns the error of one status for another. Other programs write messages of
// any length.
func CopyError(from *snapshotv1.VolumeSnapshotError) *snapshotv1.VolumeSnapshotError {
	if from == nil || from.Message == nil || len(*from.Message) <= kube.MessageLimit {
		return from
	}
	return &snapshotv1.VolumeSnapshotError{Time: from.Time, Message: ptr.To(kube.Truncate(*from.Message, kube.MessageLimit))}
}

// StatusError converts an error's text for a status, and shortens it to [kube.MessageLimit].
func StatusError(message string, now time.Time) *snapshotv1.VolumeSnapshotError {
	message = kube.Truncate(message, kube.MessageLimit)
	return &snapshotv1.VolumeSnapshotError{Time: &metav1.Time{Time: now}, Message: &message}
}
