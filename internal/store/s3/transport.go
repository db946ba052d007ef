package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"
)

// errStalled means that nothing of a request or its response moved for too long.
var errStalled = errors.New("no data moved in time")

type stallKey struct{}

// withStall lets a request wait longer for its response.
func withStall(ctx context.Context, stall time.Duration) context.Context {
	return context.WithValue(ctx, stallKey{}, stall)
}

// A stallTransport cancels requests of which nothing moves. It does not limit how long a
// whole request takes.
type stallTransport struct {
	base  http.RoundTripper
	stall time.Duration
}

func (t *stallTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	stall := t.stall
	if longer, ok := request.Context().Value(stallKey{}).(time.Duration); ok {
		stall = longer
	}
	ctx, cancel := context.WithCancelCause(request.Context())
	timer := time.AfterFunc(stall, func() { cancel(errStalled) })
	request = request.WithContext(ctx)
	if request.Body != nil {
		request.Body = &movingBody{ReadCloser: request.Body, moved: func() { timer.Reset(stall) }}
	}
	response, err := t.base.RoundTrip(request)
	timer.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errStalled) {
			err = errStalled
		}
		cancel(nil)
		return nil, err
	}
	response.Body = &stallBody{ReadCloser: response.Body, ctx: ctx, cancel: cancel, stall: t.stall}
	return response, nil
}

// A movingBody is the body of a request. The connection reads it as far as the server
// takes it.
type movingBody struct {
	io.ReadCloser
	moved func()
}

func (b *movingBody) Read(p []byte) (int, error) {
	b.moved()
	return b.ReadCloser.Read(p)
}

// A stallBody is the body of a response. Only its reads are limited, because a reader may
// wait as long as it likes between them.
type stallBody struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // it is the request's, and ends with this body
	cancel context.CancelCauseFunc
	stall  time.Duration
}

func (b *stallBody) Read(p []byte) (int, error) {
	timer := time.AfterFunc(b.stall, func() { b.cancel(errStalled) })
	defer timer.Stop()
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// regionOfAmazon returns the region in the host of an endpoint, or "".
func regionOfAmazon(endpoint url.URL) string { return s3utils.GetRegionFromURL(endpoint) }
