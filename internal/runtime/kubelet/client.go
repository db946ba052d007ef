package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/internal/runtime"
)

// answerMargin is how much longer than the kubelet the client waits.
const answerMargin = 10 * time.Second

// maxAnswer limits what is read of an answer, in bytes.
const maxAnswer = 64 << 10

// A client calls the checkpoint endpoint of a kubelet.
type client struct {
	http      *http.Client
	address   string
	tokenFile string
}

func newClient(options Options) (*client, error) {
	config, err := tlsConfig(options)
	if err != nil {
		return nil, err
	}
	return &client{
		address: options.Address, tokenFile: options.TokenFile,
		http: &http.Client{
			// Without a proxy, keep-alive and redirects: the token goes to the kubelet only, and a
			// request that failed is never sent again.
			Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// A result is what has come of a call.
type result struct {
	path string // of the archive on the node, if err is nil
	err  error
	// sent is whether the kubelet may have received the request.
	sent bool
	// answered is whether the kubelet has ended the call. If it was sent and not answered,
	// there may be an archive or not.
	answered bool
}

// checkpoint makes the call, once.
func (c *client) checkpoint(ctx context.Context, container runtime.Container, timeout time.Duration) result {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout+answerMargin, runtime.Errorf(runtime.Timeout,
		"the kubelet has not answered within %s: set a longer timeout, for which the container stays frozen", timeout))
	defer cancel()
	var r result
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { r.sent = true }})
	status, body, err := c.post(ctx, container, timeout)
	switch {
	case err != nil && ctx.Err() != nil:
		r.err = fmt.Errorf("calling the kubelet: %w", context.Cause(ctx))
	case err != nil && !r.sent:
		r.err = notConnected(err)
	case err != nil:
		r.err = fmt.Errorf("the connection to the kubelet was lost: %w", err)
	case status != http.StatusOK:
		r.answered, r.err = true, rejection(status, body)
	default:
		r.answered = true
		r.path, r.err = parseAnswer(body)
	}
	return r
}

func parseAnswer(body []byte) (string, error) {
	var answer struct{ Items []string }
	if err := json.Unmarshal(body, &answer); err != nil || len(answer.Items) != 1 {
		return "", runtime.Errorf(runtime.DumpFailed, "the kubelet has answered with %.200q, want the path of one archive", body)
	}
	return answer.Items[0], nil
}

// notConnected is the error of a request that was not sent.
func notConnected(err error) *runtime.Error {
	var typed *runtime.Error
	if errors.As(err, &typed) {
		return typed
	}
	var recorded *certificateError
	var unverified *tls.CertificateVerificationError
	return &runtime.Error{
		Reason: runtime.DumpFailed, Retry: !errors.As(err, &recorded) && !errors.As(err, &unverified),
		Err: fmt.Errorf("connecting to the kubelet: %w", err),
	}
}

func (c *client) post(ctx context.Context, container runtime.Container, timeout time.Duration) (int, []byte, error) {
	token, err := os.ReadFile(c.tokenFile)
	if err != nil {
		return 0, nil, runtime.Errorf(runtime.KubeletUnauthorized, "reading the token for the kubelet: %w", err)
	}
	u := url.URL{
		Scheme: "https", Host: c.address,
		Path:     "/checkpoint/" + container.Namespace + "/" + container.Pod + "/" + container.Name,
		RawQuery: "timeout=" + strconv.Itoa(max(1, int(timeout.Round(time.Second)/time.Second))),
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
	if err != nil {
		return 0, nil, runtime.Errorf(runtime.DumpFailed, "calling the kubelet: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	response, err := c.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, nil, fmt.Errorf("reading the answer: %w", err)
	}
	return response.StatusCode, body, nil
}

// rejection returns what an answer means that is not 200.
func rejection(status int, body []byte) *runtime.Error {
	text := strings.TrimSpace(string(body))
	switch {
	case status == http.StatusUnauthorized:
		return runtime.Errorf(runtime.KubeletUnauthorized, "the kubelet does not accept the token (401 %s): "+
			"it must be one of the cluster's service accounts with the API server's audience, and the kubelet must "+
			"have webhook authentication", text)
	case status == http.StatusForbidden:
		return runtime.Errorf(runtime.KubeletUnauthorized, "the kubelet does not permit it (403 %s): bind the service "+
			`account to a ClusterRole with the rule apiGroups [""], resources ["nodes/checkpoint"], verbs ["create"]`, text)
	case status == http.StatusNotFound && text == "pod does not exist":
		return runtime.Errorf(runtime.PodGone, "the kubelet does not know the pod (404 %s)", text)
	case status == http.StatusNotFound && strings.HasPrefix(text, "container ") && strings.HasSuffix(text, "does not exist"):
		return runtime.Errorf(runtime.ContainerUnknown, "the pod has no such container (404 %s)", text)
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return runtime.Errorf(runtime.EndpointMissing, "the kubelet has no checkpoint endpoint (%d %s): switch on its "+
			"feature gate ContainerCheckpoint and enableDebuggingHandlers", status, text)
	}
	return runtime.FailureOf(text)
}
