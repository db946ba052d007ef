package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// retryAfter is how many seconds a client must wait after status 429.
const retryAfter = 1

// writeError responds with an error as the API server does.
func writeError(w http.ResponseWriter, code int) {
	for name, values := range errorHeader(code) {
		w.Header()[name] = values
	}
	w.WriteHeader(code)
	_, _ = w.Write(errorBody(code)) // If this fails, the request has failed anyway.
}

// replaceResponse replaces a response by an error.
func replaceResponse(answer *http.Response, code int) {
	answer.Body.Close()
	body := errorBody(code)
	answer.StatusCode, answer.Status = code, fmt.Sprintf("%d %s", code, http.StatusText(code))
	answer.Header, answer.ContentLength = errorHeader(code), int64(len(body))
	answer.Body = io.NopCloser(bytes.NewReader(body))
}

func errorHeader(code int) http.Header {
	header := http.Header{"Content-Type": {"application/json"}}
	if code == http.StatusTooManyRequests {
		header.Set("Retry-After", fmt.Sprint(retryAfter))
	}
	return header
}

// errorBody returns the Status object of an error.
func errorBody(code int) []byte {
	body, err := json.Marshal(errorStatus(code))
	if err != nil {
		panic(err) // A Status can always be marshalled.
	}
	return body
}

func errorStatus(code int) *metav1.Status {
	s := &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: statusReason(code),
		Message: fmt.Sprintf("the test responds %d %s", code, http.StatusText(code)),
	}
	if code == http.StatusTooManyRequests {
		s.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
	}
	return s
}

// statusReason returns the reason by which clients distinguish errors. A conflict is
// one with another writer, or with a quota; that an object exists already would be
// another reason.
func statusReason(code int) metav1.StatusReason {
	switch code {
	case http.StatusForbidden:
		return metav1.StatusReasonForbidden
	case http.StatusConflict:
		return metav1.StatusReasonConflict
	case http.StatusUnprocessableEntity:
		return metav1.StatusReasonInvalid
	case http.StatusTooManyRequests:
		return metav1.StatusReasonTooManyRequests
	case http.StatusGatewayTimeout:
		return metav1.StatusReasonTimeout
	default:
		return metav1.StatusReasonInternalError
	}
}
