package proxy

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestNames(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		method, path, name string
		write              bool
	}{
		"a namespaced object":                          {"POST", "/api/v1/namespaces/ns/persistentvolumeclaims", "POST persistentvolumeclaims", true},
		"its status":                                   {"PATCH", "/api/v1/namespaces/ns/persistentvolumeclaims/data/status", "PATCH persistentvolumeclaims/status", true},
		"a cluster-scoped object":                      {"DELETE", "/api/v1/persistentvolumes/pv", "DELETE persistentvolumes", true},
		"an object of an API group":                    {"PATCH", "/apis/storage.k8s.io/v1/volumeattachments/va/status", "PATCH volumeattachments/status", true},
		"a namespaced object of an API group":          {"PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l", "PUT leases", true},
		"a namespace itself":                           {"DELETE", "/api/v1/namespaces/ns", "DELETE namespaces", true},
		"a list":                                       {"GET", "/api/v1/nodes", "GET nodes", false},
		"a resource of all namespaces":                 {"GET", "/apis/snapshot.storage.k8s.io/v1/volumesnapshots", "GET volumesnapshots", false},
		"an event does not count as a write":           {"POST", "/api/v1/namespaces/ns/events", "POST events", false},
		"an event of the newer API does not either":    {"PATCH", "/apis/events.k8s.io/v1/namespaces/ns/events/e", "PATCH events", false},
		"discovery is named by its path":               {"GET", "/apis/storage.k8s.io/v1", "GET /apis/storage.k8s.io/v1", false},
		"a path outside of the API is named by itself": {"GET", "/version", "GET /version", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, http.NoBody)
			if got := Name(r); got != tt.name {
				t.Errorf("the name is %q, want %q", got, tt.name)
			}
			if got := IsWrite(r); got != tt.write {
				t.Errorf("IsWrite is %v", got)
			}
		})
	}
}

func TestFates(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		fate    Fault
		arrives bool
		says    int // 0 for no answer
	}{
		"the request is forwarded":                {Fault{}, true, http.StatusOK},
		"the connection breaks before it arrives": {Fault{Disconnect: true}, false, 0},
		"the request is rejected":                 {Fault{RejectStatus: http.StatusTooManyRequests}, false, http.StatusTooManyRequests},
		"an error replaces the response":          {Fault{ReplaceStatus: http.StatusInternalServerError}, true, http.StatusInternalServerError},
		"the response is dropped":                 {Fault{AfterResponse: func() bool { return true }}, true, 0},
		"the response is observed":                {Fault{AfterResponse: func() bool { return false }}, true, http.StatusOK},
		"the response is delayed":                 {Fault{Delay: 10 * time.Millisecond}, true, http.StatusOK},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			arrived := 0
			config := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
				arrived++
				_, _ = w.Write([]byte("done")) // If this fails, the test fails.
			})
			through := newRequester(t, Start(t, config, func(*http.Request) Fault { return tt.fate }))
			answer, err := through(http.MethodPost, "/api/v1/nodes")
			if (arrived > 0) != tt.arrives {
				t.Errorf("the request arrived %d times", arrived)
			}
			if (err != nil) != (tt.says == 0) || err == nil && answer.code != tt.says {
				t.Errorf("the response is %+v, %v", answer, err)
			}
			if tt.says == http.StatusOK && answer.body != "done" {
				t.Errorf("the body is %q", answer.body)
			}
		})
	}
}

// A delayed watch delivers all events, and none too early.
func TestWatchIsDelayed(t *testing.T) {
	t.Parallel()
	const pause = 50 * time.Millisecond
	sent := make(chan time.Time, 2)
	config := startServer(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, piece := range []string{"one", "two"} {
			sent <- time.Now()
			_, _ = w.Write([]byte(piece)) // If this fails, the test fails.
			_ = http.NewResponseController(w).Flush()
		}
	})
	through := newRequester(t, Start(t, config, func(r *http.Request) Fault {
		if IsWatch(r) {
			return Fault{Delay: pause}
		}
		return Fault{}
	}))
	answer, err := through(http.MethodGet, "/api/v1/nodes?watch=true")
	if err != nil || answer.body != "onetwo" {
		t.Fatalf("the response is %+v, %v", answer, err)
	}
	<-sent
	if early := pause - time.Since(<-sent); early > 0 {
		t.Errorf("the event came %s early", early)
	}
}

func TestCounterCountsAndRejects(t *testing.T) {
	t.Parallel()
	c := NewCounter(t, startServer(t, func(http.ResponseWriter, *http.Request) {}))
	through := newRequester(t, c.Kubeconfig)
	ask := func(method, path string, want int) {
		t.Helper()
		if answer, err := through(method, path); err != nil || answer.code != want {
			t.Errorf("%s %s: %+v, %v", method, path, answer, err)
		}
	}
	ask(http.MethodPatch, "/api/v1/nodes/one/status", http.StatusOK)
	ask(http.MethodPatch, "/api/v1/nodes/two/status", http.StatusOK)
	ask(http.MethodGet, "/api/v1/nodes?watch=true", http.StatusOK)
	c.Reject(func(r *http.Request) bool { return r.Method == http.MethodDelete })
	ask(http.MethodDelete, "/api/v1/nodes/one", http.StatusTooManyRequests)
	got := c.Reset()
	if got["PATCH nodes/status"] != 2 || got["DELETE nodes"] != 1 || got.Total() != 3 {
		t.Errorf("the counts are %v", got)
	}
	if says := got.PerObject(2); says != "DELETE nodes 0.50, PATCH nodes/status 1.00" {
		t.Errorf("per object the counts are %s", says)
	}
	if left := c.Reset().Total(); left != 0 {
		t.Errorf("%d are counted twice", left)
	}
}

// startServer is a server in place of the API server.
func startServer(t *testing.T, serve http.HandlerFunc) *rest.Config {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

type response struct {
	code int
	body string
}

// newRequester returns a function that sends requests through a kubeconfig.
func newRequester(t *testing.T, kubeconfig string) func(method, path string) (response, error) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	secure, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}} // So that no request is repeated.
	return func(method, path string) (response, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, config.Host+path, http.NoBody)
		if err != nil {
			return response{}, err
		}
		got, err := client.Do(r)
		if err != nil {
			return response{}, err
		}
		defer got.Body.Close()
		body, err := io.ReadAll(got.Body)
		return response{got.StatusCode, string(body)}, err
	}
}
