package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/minio/minio-go/v7"
)

// A slowTransport takes a body byte by byte, and sends the response in the same way.
type slowTransport struct {
	request, wait, response time.Duration // before each byte, before the response, before each byte of that
}

func (s slowTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	for p := make([]byte, 1); ; {
		if err := pause(r.Context(), s.request); err != nil {
			return nil, err
		}
		if _, err := r.Body.Read(p); errors.Is(err, io.EOF) {
			break
		}
	}
	if err := pause(r.Context(), s.wait); err != nil {
		return nil, err
	}
	body := &slowBody{ctx: r.Context(), delay: s.response, text: strings.NewReader(strings.Repeat("x", 10))}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(body)}, nil
}

type slowBody struct {
	ctx   context.Context
	delay time.Duration
	text  io.Reader
}

func (b *slowBody) Read(p []byte) (int, error) {
	if err := pause(b.ctx, b.delay); err != nil {
		return 0, err
	}
	return b.text.Read(p[:1])
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A slow server is no stalled one: the time of a request is not limited as long as data
// move.
func TestStalls(t *testing.T) {
	const slow, stalled, patient = 50 * time.Second, 70 * time.Second, 200 * time.Second
	tests := map[string]struct {
		server  slowTransport
		longer  time.Duration
		between time.Duration // the pauses of who reads the response
		stalls  bool
	}{
		"a server that takes and sends data slowly is waited for":     {slowTransport{slow, slow, slow}, 0, 0, false},
		"a server that takes no data is not":                          {slowTransport{stalled, slow, slow}, 0, 0, true},
		"a server that does not respond is not":                       {slowTransport{slow, stalled, slow}, 0, 0, true},
		"a server that stops to send is not":                          {slowTransport{slow, slow, stalled}, 0, 0, true},
		"a request that takes longer is waited for":                   {slowTransport{slow, stalled, slow}, patient, 0, false},
		"a reader may wait as long as it likes before it reads again": {slowTransport{slow, slow, slow}, 0, time.Hour, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if tt.longer > 0 {
					ctx = withStall(ctx, tt.longer)
				}
				request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://x", strings.NewReader(strings.Repeat("x", 10)))
				if err != nil {
					t.Fatal(err)
				}
				err = roundTrip(&stallTransport{base: tt.server, stall: time.Minute}, request, tt.between)
				if errors.Is(err, errStalled) != tt.stalls || !tt.stalls && err != nil {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
}

// roundTrip sends a request and reads its response.
func roundTrip(transport http.RoundTripper, request *http.Request, between time.Duration) error {
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	for p := make([]byte, 1); ; time.Sleep(between) {
		if _, err := response.Body.Read(p); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestRetry(t *testing.T) {
	overload := minio.ErrorResponse{Code: "SlowDown"}
	denied := minio.ErrorResponse{Code: "AccessDenied"}
	tests := map[string]struct {
		retry, each time.Duration // the limit, and how long a request takes
		failures    int           // before it succeeds
		err         error
		want        int // attempts
		succeeds    bool
	}{
		"a request that succeeds is sent once":                        {time.Minute, 0, 0, nil, 1, true},
		"a request is repeated until it succeeds":                     {time.Minute, time.Second, 5, overload, 6, true},
		"a request that fails for good is not repeated":               {time.Minute, 0, 99, denied, 1, false},
		"a request that takes longer than the limit is repeated, too": {time.Minute, time.Hour, 3, overload, 4, true},
		"but not without end":                                         {time.Minute, time.Hour, 99, overload, minAttempts, false},
		"without a limit nothing is repeated":                         {0, 0, 99, overload, 1, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				attempts := 0
				s := &Store{limits: limits{retry: tt.retry, backoff: time.Second}}
				err := s.retry(t.Context(), func(context.Context) error {
					time.Sleep(tt.each)
					if attempts++; attempts <= tt.failures {
						return tt.err
					}
					return nil
				})
				if attempts != tt.want || (err == nil) != tt.succeeds {
					t.Errorf("%d attempts, %v, want %d", attempts, err, tt.want)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		s := &Store{limits: limits{retry: time.Hour, backoff: time.Second}}
		start := time.Now()
		err := s.retry(ctx, func(context.Context) error { return overload })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("when its context ends: %v after %v", err, time.Since(start))
		}
	})
}
