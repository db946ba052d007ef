// Package proxy stands between one process under test and the API server: it
// counts what the process asks for, breaks its connections, loses its answers,
// and delays what it watches. Every process has a proxy of its own, so whoever
// comes through it is known.
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

// A Fault is what becomes of a request. The zero value lets it through.
type Fault struct {
	// Disconnect breaks the connection; the request does not arrive.
	Disconnect bool
	// RejectStatus is the HTTP status of an error with which the request is turned
	// away; it does not arrive. 0 for none.
	RejectStatus int
	// AfterResponse, if any, is called when the API server has done what it was asked
	// for, and before the process learns of it. It tells whether the answer is
	// lost.
	AfterResponse func() (lost bool)
	// ReplaceStatus is the HTTP status of an error that the process gets in place of
	// the answer, when the API server has done what it was asked for. 0 for none.
	ReplaceStatus int
	// Delay is how much later than it was sent each piece of the answer comes.
	Delay time.Duration
}

type proxy struct {
	decide  func(*http.Request) Fault
	reverse *httputil.ReverseProxy
}

// faultKey is where the context of a request holds its fate.
type faultKey struct{}

var errResponseLost = errors.New("the answer is lost")

// Start serves a proxy until the test ends and returns a kubeconfig that leads
// through it to the API server of config. Decide is asked about every request,
// several at a time; it may read the body if it puts another one in its place.
func Start(t testing.TB, config *rest.Config, decide func(*http.Request) Fault) (kubeconfig string) {
	t.Helper()
	server := newServer(t, config, decide)
	server.Start()
	return writeKubeconfig(t, server)
}

// newServer makes a proxy that is still to be started, and that ends with the
// test.
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
		Transport: transport, FlushInterval: -1, // Watches are read while they run.
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ModifyResponse: modifyResponse,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:       log.New(io.Discard, "", 0), // Whoever is killed leaves requests behind.
	}})
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server
}

// writeKubeconfig writes a kubeconfig that leads to a proxy that has been started.
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
	if known := server.Certificate(); known != nil {
		cluster.CertificateAuthorityData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: known.Raw})
	}
	config.Clusters[name] = cluster
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name}
	config.CurrentContext = name
	return config
}

// ServeHTTP forwards a request if that is its fate. A connection that breaks
// before the answer is what a client sees of a proxy that panics with
// ErrAbortHandler.
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

// modifyResponse is called when the API server has done what it was asked for.
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
