package crash

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A proxy stands between one process and the API server, so that a write can
// be struck and watches can be late. A process has one of its own: whoever
// comes through it is known.
type proxy struct {
	stage   *stage
	caller  *controller
	reverse *httputil.ReverseProxy
}

// strikeKey is where a request's context holds what happens to it when it is done.
type strikeKey struct{}

var errLost = errors.New("the answer is lost")

// newProxy serves a proxy until the test ends and returns a kubeconfig that
// leads to it.
func newProxy(t *testing.T, s *stage, caller *controller) (kubeconfig string) {
	t.Helper()
	transport, err := rest.TransportFor(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	upstream, err := url.Parse(s.Config.Host)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{stage: s, caller: caller}
	p.reverse = &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, // Watches are read while they run.
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(upstream) },
		ModifyResponse: p.answered,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := httptest.NewServer(p)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	config := clientcmdapi.NewConfig()
	config.Clusters["proxy"] = &clientcmdapi.Cluster{Server: server.URL}
	config.Contexts["proxy"] = &clientcmdapi.Context{Cluster: "proxy"}
	config.CurrentContext = "proxy"
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// ServeHTTP forwards a request. A connection that breaks before the answer is
// what a client sees of a proxy that panics with ErrAbortHandler.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if what := writeOf(r); what != "" {
		if hit := p.stage.trace.arrive(what); hit != nil {
			if hit.early {
				p.stage.strike(p.caller, hit)
			} else {
				r = r.WithContext(context.WithValue(r.Context(), strikeKey{}, hit))
			}
			if hit.early && hit.kills {
				panic(http.ErrAbortHandler)
			}
		}
	}
	p.reverse.ServeHTTP(w, r)
}

// answered is called when the API server has done what it was asked for.
func (p *proxy) answered(answer *http.Response) error {
	query := answer.Request.URL.Query()
	if pause := p.stage.scenario.lag; pause > 0 && query.Has("watch") && strings.HasSuffix(answer.Request.URL.Path, "/"+p.stage.scenario.lagOf) {
		answer.Body = newLate(answer.Body, pause)
	}
	hit, ok := answer.Request.Context().Value(strikeKey{}).(*blow)
	if !ok {
		return nil
	}
	p.stage.strike(p.caller, hit)
	if hit.kills || hit.loses {
		answer.Body.Close()
		return errLost
	}
	return nil
}

// late delivers a stream some time after it has come.
type late struct {
	source interface{ Close() error }
	pieces chan piece
	closed chan struct{}
	pause  time.Duration
	rest   []byte
}

type piece struct {
	came  time.Time
	bytes []byte
	err   error
}

func newLate(source interface {
	Read(p []byte) (int, error)
	Close() error
}, pause time.Duration) *late {
	l := &late{source: source, pieces: make(chan piece, 1024), closed: make(chan struct{}), pause: pause}
	go func() {
		for {
			buffer := make([]byte, 32<<10)
			n, err := source.Read(buffer)
			select {
			case l.pieces <- piece{time.Now(), buffer[:n], err}:
			case <-l.closed:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return l
}

// Read waits until the next piece is old enough.
func (l *late) Read(into []byte) (int, error) {
	for len(l.rest) == 0 {
		var next piece
		select {
		case next = <-l.pieces:
		case <-l.closed:
			return 0, http.ErrBodyReadAfterClose
		}
		due := time.NewTimer(time.Until(next.came.Add(l.pause)))
		select {
		case <-due.C:
		case <-l.closed:
			due.Stop()
			return 0, http.ErrBodyReadAfterClose
		}
		if next.err != nil {
			return 0, next.err
		}
		l.rest = next.bytes
	}
	n := copy(into, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

// Close ends the stream.
func (l *late) Close() error {
	close(l.closed)
	return l.source.Close()
}
