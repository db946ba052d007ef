package runtime

import (
	"errors"
	"fmt"
)

// A Reason is why a checkpoint is not possible, in the form of a condition's reason.
type Reason string

// Reasons for which an engine rejects or fails a checkpoint.
const (
	// RuntimeNotReady means that CRIU or the OCI runtime is missing or disabled.
	RuntimeNotReady Reason = "RuntimeNotReady"
	// CRIUTooOld means that the runtime requires a newer CRIU.
	CRIUTooOld Reason = "CRIUTooOld"
	// RuntimeUnsupported means that the CRI runtime has no checkpoint.
	RuntimeUnsupported Reason = "RuntimeUnsupported"
	// ContainerNotRunning means that the container has ended, or is another one now.
	ContainerNotRunning Reason = "ContainerNotRunning"
	// Busy means that something else checkpoints or has paused the container.
	Busy Reason = "Busy"
	// FreezeFailed means that not all processes of the container could be frozen in time.
	FreezeFailed Reason = "FreezeFailed"
	// Timeout means that the container would have been frozen for longer than permitted.
	Timeout Reason = "Timeout"
	// LivenessBudgetTooSmall means that the kubelet would kill the container, because it does
	// not answer its liveness probe while it is frozen.
	LivenessBudgetTooSmall Reason = "LivenessBudgetTooSmall"
	// InsufficientNodeDisk means that the node has no room for the checkpoint.
	InsufficientNodeDisk Reason = "InsufficientNodeDisk"
	// EstablishedTCP means that the container has established TCP connections.
	EstablishedTCP Reason = "EstablishedTCP"
	// FileLocks means that the container holds file locks, which the engine cannot dump.
	FileLocks Reason = "FileLocks"
	// ExternalUnixSocket means that the container is connected to a unix socket of another
	// one.
	ExternalUnixSocket Reason = "ExternalUnixSocket"
	// IOUring means that the container uses io_uring, which CRIU cannot dump.
	IOUring Reason = "IOUring"
	// GhostFileTooLarge means that the container has a deleted file open that is too large.
	GhostFileTooLarge Reason = "GhostFileTooLarge"
	// VolumeTooLarge means that an emptyDir volume or /dev/shm has more than the limit.
	VolumeTooLarge Reason = "EphemeralVolumeTooLarge"
	// MountSharing means that a mount of the container is shared with the node.
	MountSharing Reason = "MountSharing"
	// KubeletUnauthorized means that the kubelet rejects the credentials.
	KubeletUnauthorized Reason = "KubeletUnauthorized"
	// EndpointMissing means that the kubelet has no checkpoint endpoint.
	EndpointMissing Reason = "EndpointMissing"
	// PodGone means that the kubelet does not know the pod.
	PodGone Reason = "PodGone"
	// ContainerUnknown means that the pod has no such container.
	ContainerUnknown Reason = "ContainerUnknown"
	// SourcePodReplaced means that the dump is one of another pod of the same name.
	SourcePodReplaced Reason = "SourcePodReplaced"
	// DumpFailed is any other failure, with the name that the native PodCheckpoint has for it
	// (KEP-5823).
	DumpFailed Reason = "CheckpointFailed"
)

// An Error is a checkpoint that failed, and why.
type Error struct {
	Reason Reason
	// Retry is whether the same request may succeed without a change by anybody.
	Retry bool
	// Untouched is whether nothing was frozen.
	Untouched bool
	// OtherEngine is whether another engine may succeed. Nothing was frozen then.
	OtherEngine bool
	// Err says what happened, and what to do about it.
	Err error `json:"-"`
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an [Error] that is not worth a retry.
func Errorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Err: fmt.Errorf(format, args...)}
}

// RetryErrorf returns an [Error] of a request that may succeed later, without a change of it.
func RetryErrorf(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Retry: true, Err: fmt.Errorf(format, args...)}
}

// WaitErrorf returns an [Error] of a request that was rejected before anything was frozen,
// and may be accepted later, without a change of it.
func WaitErrorf(reason Reason, format string, args ...any) *Error {
	err := RetryErrorf(reason, format, args...)
	err.Untouched = true
	return err
}

// ErrorfForEngine returns an [Error] that is that of one engine only: another one may
// succeed.
func ErrorfForEngine(format string, args ...any) *Error {
	err := Errorf(RuntimeUnsupported, format, args...)
	err.OtherEngine = true
	return err
}

// IsOfEngine reports whether another engine may succeed.
func IsOfEngine(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.OtherEngine
}

// IsUntouched reports whether nothing was frozen. It is false if that is not known.
func IsUntouched(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Untouched
}

// ReasonOf returns the reason of an error, [DumpFailed] if it has none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return DumpFailed
}

// IsRetryable reports whether the same request may succeed without a change by anybody.
// An error without a reason may.
func IsRetryable(err error) bool {
	var e *Error
	return !errors.As(err, &e) || e.Retry
}
