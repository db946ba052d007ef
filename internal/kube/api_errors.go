package kube

import (
	"errors"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Cause is why a request to the API server has failed, as far as a controller acts on it.
type Cause int

// Causes of failed requests.
const (
	// Unavailable means that the request may succeed if it is repeated: the API server, or
	// something that it needs, does not answer or is overloaded. It is also the cause of
	// an error that is no response of the API server.
	Unavailable Cause = iota
	// Changed means that the object is not as it was read: it is decided again.
	Changed
	// Gone means that the object does not exist any more.
	Gone
	// Denied means that the same request fails until a person changes something: a
	// permission, an admission policy or webhook, a quota, or the object itself.
	Denied
)

// CauseOf returns why a request to the API server has failed. Of joined errors it is the
// first response of the API server that counts.
func CauseOf(err error) Cause {
	var response apierrors.APIStatus
	if !errors.As(err, &response) {
		return Unavailable
	}
	status := response.Status()
	switch {
	case isFromWebhook(status.Message): // Webhooks choose their codes freely.
		return Denied
	case strings.Contains(status.Message, "not yet ready to handle request"):
		return Unavailable // The API server starts.
	case status.Reason == metav1.StatusReasonInvalid && isFailedCondition(&status):
		return Changed
	}
	return causeByReason(&status)
}

func causeByReason(status *metav1.Status) Cause {
	switch status.Reason {
	case metav1.StatusReasonConflict, metav1.StatusReasonAlreadyExists:
		return Changed
	case metav1.StatusReasonNotFound, metav1.StatusReasonGone:
		return Gone
	case metav1.StatusReasonForbidden, metav1.StatusReasonInvalid, metav1.StatusReasonUnauthorized, metav1.StatusReasonBadRequest,
		metav1.StatusReasonMethodNotAllowed, metav1.StatusReasonNotAcceptable, metav1.StatusReasonUnsupportedMediaType,
		metav1.StatusReasonRequestEntityTooLarge:
		return Denied
	default:
		return Unavailable
	}
}

// isFailedCondition reports whether an Invalid response is about the condition of a write,
// and not about its content. There are three: a failed test operation of a JSON patch, whose
// response has no details; a UID in a patch that is not the object's; and a finalizer for an
// object that is being deleted.
func isFailedCondition(status *metav1.Status) bool {
	details := status.Details
	if details == nil || details.Kind == "" && details.Name == "" && len(details.Causes) == 0 {
		return strings.HasPrefix(status.Message, "the server rejected our request due to an error in our request")
	}
	for _, cause := range details.Causes {
		isUID := cause.Field == "metadata.uid"
		isLate := cause.Field == "metadata.finalizers" && strings.Contains(cause.Message, "no new finalizers can be added if the object is being deleted")
		if isUID || isLate {
			return true
		}
	}
	return false
}

// isFromWebhook reports whether an admission webhook has denied the request, or could not be
// called.
func isFromWebhook(message string) bool {
	return strings.Contains(message, "admission webhook ") && strings.Contains(message, " denied the request") ||
		strings.Contains(message, "failed calling webhook")
}

// IsDenied reports whether a request fails until a person changes something.
func IsDenied(err error) bool { return CauseOf(err) == Denied }

// IsStale reports whether the object of a write has changed since it was read, or is gone. A
// controller that watches the object reconciles it again anyway.
func IsStale(err error) bool {
	cause := CauseOf(err)
	return cause == Changed || cause == Gone
}

// IgnoreGone returns nil if a write has failed because the object is gone.
func IgnoreGone(err error) error {
	if CauseOf(err) == Gone {
		return nil
	}
	return err
}

// Message returns the text of an error for users. If the API server has denied a request, it
// says what has to be changed.
func Message(err error) string {
	var response apierrors.APIStatus
	if !IsDenied(err) || !errors.As(err, &response) {
		return err.Error()
	}
	return err.Error() + " (" + adviceFor(response.Status().Message) + "; it is retried)"
}

// adviceFor returns what a person has to do about a denied request. The response names the
// object and the verb, and the account or the policy.
func adviceFor(message string) string {
	switch {
	case strings.Contains(message, " cannot ") && strings.Contains(message, " resource "):
		return "grant that account this permission"
	case strings.Contains(message, "exceeded quota"):
		return "raise the quota, or delete what it counts"
	case isFromWebhook(message):
		return "change or repair the webhook, or exempt this controller's account from it"
	case strings.Contains(message, "AdmissionPolicy"):
		return "change the policy, or exempt this controller's account from it"
	default:
		return "the API server denies the request until this is changed"
	}
}
