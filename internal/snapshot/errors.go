package snapshot

import (
	"errors"
	"fmt"
	"strings"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"google.golang.org/grpc/codes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// repeatErrorAfter is how long an error of the same kind is not written again because
// only its wording differs: many drivers put the number of the request into it.
const repeatErrorAfter = 10 * time.Minute

// A Problem is something that users or administrators must put right. It goes to
// the status of their object, as the answers of drivers do; failures of requests
// to the API server do not, for they are nobody's concern but ours.
type Problem struct {
	// Reason is that of the event.
	Reason string
	Text   string
}

// Error is what the user is told.
func (p *Problem) Error() string { return p.Text }

// Problemf makes a Problem.
func Problemf(reason, format string, args ...any) *Problem {
	return &Problem{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// UserMessage is an error as users are told: empty if it does not concern them. It says
// whether time alone may mend it.
func UserMessage(err error) string {
	var (
		problem   *Problem
		driverErr *csi.Error
	)
	switch {
	case errors.As(err, &driverErr) && Terminal(driverErr):
		return err.Error() + " (terminal: it stays so until something is changed)"
	case errors.As(err, &driverErr):
		return err.Error() + " (transient: it is tried again)"
	case errors.As(err, &problem):
		return err.Error()
	default:
		return ""
	}
}

// Terminal tells whether a driver's answer says that the same request will never
// succeed while nothing is changed. It is still repeated, for drivers have been
// seen to be wrong about that, but slowly.
func Terminal(err *csi.Error) bool {
	switch err.Code {
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.Unimplemented, codes.OutOfRange, codes.DataLoss:
		return true
	default:
		return false
	}
}

// IsNewError tells whether what users are told of an error differs from what they have
// been told. Of a driver's answers the code is compared, not the wording.
func IsNewError(before *snapshotv1.VolumeSnapshotError, err error, now time.Time) bool {
	text := UserMessage(err)
	if text == "" || before == nil || before.Message == nil {
		return text != ""
	}
	if *before.Message == text {
		return false
	}
	var driverErr *csi.Error
	if !errors.As(err, &driverErr) || !strings.HasPrefix(*before.Message, errorPrefix(driverErr)) {
		return true
	}
	return before.Time == nil || now.Sub(before.Time.Time) > repeatErrorAfter
}

func errorPrefix(err *csi.Error) string {
	return fmt.Sprintf("driver %s: %s: %s", err.Driver, err.Method, err.Code)
}

// StatusError is an error for a status.
func StatusError(message string, now time.Time) *snapshotv1.VolumeSnapshotError {
	return &snapshotv1.VolumeSnapshotError{Time: &metav1.Time{Time: now}, Message: &message}
}
