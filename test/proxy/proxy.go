// Package proxy stands between one process under test and the API server. It counts
// the process's requests, breaks its connections, drops responses and delays watches.
// Each process has its own proxy, so the sender of a request is known.
package proxy

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A Fault is what the proxy does to a request. The zero value forwards it.
type Fault struct {
	// Disconnect breaks the connection; the request does not arrive.
	Disconnect bool
	// RejectStatus is the HTTP status with which the proxy rejects the request, which does
	// not arrive. 0 forwards it.
	RejectStatus int
	// AfterResponse, if set, is called when the API server has responded and before the
	// process gets the response. If it returns true the response is dropped.
	AfterResponse func() (lost bool)
	// ReplaceStatus is the HTTP status of an error that replaces the response of the API
	// server. 0 keeps the response.
	ReplaceStatus int
	// Delay is how much later each part of the response arrives.
	Delay time.Duration
}

type proxy struct {
	decide  func(*http.Request) Fault
	reverse *httputil.ReverseProxy
}

// faultKey is the key of the fault in a request's context.
type faultKey struct{}

var errResponseLost = errors.New("the response is dropped")

// Start serves a proxy until the test ends, and returns a kubeconfig for the API
// server of config through it. It calls decide for every request, concurrently. decide
// may read the body if it replaces it.
func Start(t testing.TB, config *rest.Config, decide func(*http.Request) Fault) (kubeconfig string) {
	t.Helper()
	server := newServer(t, config, decide)
	server.Start()
	return writeKubeconfig(t, server)
}

// newServer returns a proxy that is not started yet. It ends with the test.
func newServer(t testing.TB, config *rest.Config, decide func(*http.Request) Fault) *httptest.Server {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(&proxy{decide: decide, reverse: &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, // Forwards watch events at once.
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ModifyResponse: modifyResponse,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:       log.New(io.Discard, "", 0), // A killed process leaves open requests.
	}})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// writeKubeconfig writes a kubeconfig for a proxy that has been started.
func writeKubeconfig(t testing.TB, to *httptest.Server) (kubeconfig string) {
	t.Helper()
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfigFor(to), kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

func kubeconfigFor(server *httptest.Server) *clientcmdapi.Config {
	const name = "proxy"
	config := clientcmdapi.NewConfig()
	cluster := &clientcmdapi.Cluster{Server: server.URL}
	if certificate := server.Certificate(); certificate != nil {
		cluster.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
	}
	config.Clusters[name] = cluster
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name}
	config.CurrentContext = name
	return config
}

// ServeHTTP injects the request's fault. A handler that panics with ErrAbortHandler
// breaks the connection before the response.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fate := p.decide(r)
	switch {
	case fate.Disconnect:
		panic(http.ErrAbortHandler)
	case fate.RejectStatus != 0:
		writeError(w, fate.RejectStatus)
	default:
		p.reverse.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, fate)))
	}
}

// modifyResponse is called when the API server has responded.
func modifyResponse(answer *http.Response) error {
	fate, ok := answer.Request.Context().Value(faultKey{}).(Fault)
	if !ok {
		return nil
	}
	if fate.AfterResponse != nil && fate.AfterResponse() {
		answer.Body.Close()
		return errResponseLost
	}
	if fate.ReplaceStatus != 0 {
		replaceResponse(answer, fate.ReplaceStatus)
	}
	if fate.Delay > 0 {
		answer.Body = newDelayedBody(answer.Body, fate.Delay)
	}
	return nil
}
