package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// Clients of Kubernetes distinguish errors by the Status in the response.
func TestErrorsAreThoseOfKubernetes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fate Fault
		is   func(error) bool
	}{
		"a missing permission":       {Fault{RejectStatus: http.StatusForbidden}, apierrors.IsForbidden},
		"a conflict":                 {Fault{RejectStatus: http.StatusConflict}, apierrors.IsConflict},
		"an invalid object":          {Fault{RejectStatus: http.StatusUnprocessableEntity}, apierrors.IsInvalid},
		"an error of the API server": {Fault{RejectStatus: http.StatusInternalServerError}, apierrors.IsInternalError},
		"an error after the write":   {Fault{ReplaceStatus: http.StatusInternalServerError}, apierrors.IsInternalError},
		"a timeout after the write":  {Fault{ReplaceStatus: http.StatusGatewayTimeout}, apierrors.IsTimeout},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := createNode(t, func(int32) Fault { return tt.fate }); !tt.is(err) {
				t.Errorf("the client gets %v", err)
			}
		})
	}
}

// A client that gets status 429 repeats the request after the pause in Retry-After.
func TestTooManyRequestsAreRepeated(t *testing.T) {
	t.Parallel()
	tries, err := createNode(t, func(try int32) Fault {
		if try == 1 {
			return Fault{RejectStatus: http.StatusTooManyRequests}
		}
		return Fault{}
	})
	if err != nil || tries != 2 {
		t.Errorf("the client gets %v after %d tries", err, tries)
	}
}

// createNode lets a client create a Node through a proxy, and returns the number of
// tries.
func createNode(t *testing.T, fate func(try int32) Fault) (tries int32, err error) {
	t.Helper()
	backend := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"apiVersion":"v1","kind":"Node"}`)) // If this fails, the test fails.
	})
	var count atomic.Int32
	through, err := clientcmd.BuildConfigFromFlags("", Start(t, backend, func(*http.Request) Fault { return fate(count.Add(1)) }))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(through)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{}, metav1.CreateOptions{})
	return count.Load(), err
}
