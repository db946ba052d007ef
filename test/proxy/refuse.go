package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// retryAfter is how many seconds a client is to wait that is told that it asks
// too much.
const retryAfter = 1

// refuse answers a request with an error, as the API server does.
func refuse(w http.ResponseWriter, code int) {
	for name, values := range headerOf(code) {
		w.Header()[name] = values
	}
	w.WriteHeader(code)
	_, _ = w.Write(bodyOf(code)) // If nobody reads it, the request has failed anyway.
}

// replace puts an error in the place of an answer.
func replace(answer *http.Response, code int) {
	answer.Body.Close()
	body := bodyOf(code)
	answer.StatusCode, answer.Status = code, fmt.Sprintf("%d %s", code, http.StatusText(code))
	answer.Header, answer.ContentLength = headerOf(code), int64(len(body))
	answer.Body = io.NopCloser(bytes.NewReader(body))
}

func headerOf(code int) http.Header {
	header := http.Header{"Content-Type": {"application/json"}}
	if code == http.StatusTooManyRequests {
		header.Set("Retry-After", fmt.Sprint(retryAfter))
	}
	return header
}

// bodyOf is the object that goes with an error.
func bodyOf(code int) []byte {
	body, err := json.Marshal(statusOf(code))
	if err != nil {
		panic(err) // It has nothing that cannot be written.
	}
	return body
}

func statusOf(code int) *metav1.Status {
	s := &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"},
		Status:   metav1.StatusFailure, Code: int32(code), Reason: reasonOf(code),
		Message: fmt.Sprintf("the test answers %d %s", code, http.StatusText(code)),
	}
	if code == http.StatusTooManyRequests {
		s.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
	}
	return s
}

// reasonOf is what clients go by. A conflict is one with another writer, or with
// a quota: that an object exists already would be another reason.
func reasonOf(code int) metav1.StatusReason {
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
