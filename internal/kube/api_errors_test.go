package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var (
	claims    = schema.GroupResource{Resource: "persistentvolumeclaims"}
	claimKind = schema.GroupKind{Kind: "PersistentVolumeClaim"}
)

// deniedByPolicy is the response to a request that a ValidatingAdmissionPolicy denies with its
// default reason.
func deniedByPolicy() error {
	err := apierrors.NewForbidden(claims, "data", errors.New("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"))
	err.ErrStatus.Reason, err.ErrStatus.Code = metav1.StatusReasonInvalid, http.StatusUnprocessableEntity
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Message: "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"}}
	return err
}

// deniedWithoutDetails is a denial with the code of a failed test of a JSON patch, whose response
// has no details either.
func deniedWithoutDetails() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "no"}}
}

// deniedByWebhook is the response to a request that a webhook denies with a code.
func deniedByWebhook(code int32, reason metav1.StatusReason) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Message: `admission webhook "w" denied the request: no`}}
}

func generic(code int) error {
	return apierrors.NewGenericServerResponse(code, "", schema.GroupResource{}, "", "", 0, false)
}

func invalid(f *field.Error) error {
	return apierrors.NewInvalid(claimKind, "data", field.ErrorList{f})
}

func TestCauseOf(t *testing.T) {
	lacksRight := apierrors.NewForbidden(claims, "data", errors.New(`User "u" cannot patch resource "persistentvolumeclaims" in API group "" in the namespace "ns"`))
	finalizers := field.NewPath("metadata", "finalizers")
	tests := map[string]struct {
		err  error
		want Cause
	}{
		"another version of the object exists":                      {apierrors.NewConflict(claims, "data", errors.New("modified")), Changed},
		"another object has the name":                               {apierrors.NewAlreadyExists(claims, "data"), Changed},
		"the test of a JSON patch has failed":                       {generic(http.StatusUnprocessableEntity), Changed},
		"a patch has the UID of another object":                     {invalid(field.Invalid(field.NewPath("metadata", "uid"), "a", "field is immutable")), Changed},
		"the object is being deleted and takes no finalizer":        {invalid(field.Forbidden(finalizers, "no new finalizers can be added if the object is being deleted, found new finalizers []string{\"f\"}")), Changed},
		"the object is gone":                                        {apierrors.NewNotFound(claims, "data"), Gone},
		"a permission is missing":                                   {lacksRight, Denied},
		"an error is wrapped":                                       {fmt.Errorf("writing: %w", lacksRight), Denied},
		"the driver has failed, and the record of that is denied":   {errors.Join(errors.New("driver"), lacksRight), Denied},
		"an admission policy denies the request as Invalid":         {deniedByPolicy(), Denied},
		"an admission plugin denies the request without details":    {deniedWithoutDetails(), Denied},
		"the object is invalid":                                     {invalid(field.Required(field.NewPath("spec"), "")), Denied},
		"a finalizer has an invalid name":                           {invalid(field.Invalid(finalizers, "f", "name is neither a standard finalizer name nor is it fully qualified")), Denied},
		"a quota is exceeded":                                       {apierrors.NewForbidden(claims, "data", errors.New("exceeded quota: q")), Denied},
		"a webhook denies the request":                              {deniedByWebhook(http.StatusForbidden, metav1.StatusReasonForbidden), Denied},
		"a webhook denies the request with the code of a conflict":  {deniedByWebhook(http.StatusConflict, metav1.StatusReasonConflict), Denied},
		"a webhook denies the request with the code of a failed if": {deniedByWebhook(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid), Denied},
		"a webhook denies the request as if the object were gone":   {deniedByWebhook(http.StatusNotFound, metav1.StatusReasonNotFound), Denied},
		"a webhook does not answer":                                 {apierrors.NewInternalError(errors.New(`failed calling webhook "w": no endpoints`)), Denied},
		"the object is too large":                                   {apierrors.NewRequestEntityTooLargeError("limit"), Denied},
		"credentials are not accepted":                              {apierrors.NewUnauthorized("expired"), Denied},
		"the API server starts":                                     {apierrors.NewForbidden(claims, "data", errors.New("not yet ready to handle request")), Unavailable},
		"the API server is overloaded":                              {apierrors.NewTooManyRequests("later", 1), Unavailable},
		"the API server cannot reach etcd":                          {apierrors.NewInternalError(errors.New("etcdserver: request timed out")), Unavailable},
		"the API server is away":                                    {apierrors.NewServiceUnavailable("away"), Unavailable},
		"a proxy does not reach the API server":                     {generic(http.StatusBadGateway), Unavailable},
		"the API server is slow":                                    {apierrors.NewTimeoutError("slow", 1), Unavailable},
		"no answer has arrived":                                     {fmt.Errorf("patch: %w", context.DeadlineExceeded), Unavailable},
		"there is no error":                                         {nil, Unavailable},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := CauseOf(tt.err); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			if stale := tt.want == Changed || tt.want == Gone; IsStale(tt.err) != stale || tt.err != nil && IsConflict(WrapWriteError(tt.err, "writing")) != stale {
				t.Errorf("a write is retried at once: %t", !stale)
			}
			if denied := tt.want == Denied; IsDenied(tt.err) != denied || tt.err != nil && strings.HasSuffix(Message(tt.err), "it is retried)") != denied {
				t.Errorf("it is reported: %t", !denied)
			}
		})
	}
}

func TestMessageSaysWhatToDo(t *testing.T) {
	tests := map[string]struct {
		err  error
		says string
	}{
		"a missing permission":  {apierrors.NewForbidden(claims, "data", errors.New(`User "u" cannot patch resource "persistentvolumeclaims"`)), "grant that account this permission"},
		"a quota":               {apierrors.NewForbidden(claims, "data", errors.New("exceeded quota: q")), "raise the quota"},
		"a webhook":             {deniedByWebhook(http.StatusForbidden, metav1.StatusReasonForbidden), "change or repair the webhook"},
		"an admission policy":   {deniedByPolicy(), "change the policy"},
		"an object that is bad": {invalid(field.Required(field.NewPath("spec"), "")), "until this is changed"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Message(fmt.Errorf("protecting: %w", tt.err)); !strings.HasPrefix(got, "protecting: ") || !strings.Contains(got, tt.says) {
				t.Errorf("got %s", got)
			}
		})
	}
}
