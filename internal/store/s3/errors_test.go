package s3

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// once are limits without repeated requests.
var once = limits{stall: 20 * time.Second, complete: timeout, retry: 0, backoff: time.Millisecond, cleanup: time.Second}

// everything calls all methods that send requests and returns their errors.
func everything(t *testing.T, s *Store) map[string]error {
	t.Helper()
	_, openErr := s.Open(t.Context(), "a")
	return map[string]error{
		"check": s.Check(t.Context()), "write": storetest.Put(t.Context(), s, "a", nil), "open": openErr, "delete": s.Delete(t.Context(), "a"),
		"list": s.List(t.Context(), "", func(store.Info) error { return nil }),
	}
}

func wantNoSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"SECRET", s3server.AccessKeyID, s3server.SecretAccessKey, "AWS4-HMAC"} {
		if strings.Contains(fmt.Sprintf("%v %+v", err, err), secret) {
			t.Errorf("the error has credentials: %v", err)
		}
	}
}

// Every error of a server, also of one that repeats what it was sent, has its kind, says
// what to do, and has no credentials.
func TestErrorsOfAServer(t *testing.T) {
	tests := map[string]struct {
		status int
		code   string
		kind   error
		advice string
	}{
		"a forbidden request is denied":                {403, "AccessDenied", store.ErrDenied, "stores.md"},
		"an unknown key is denied":                     {403, "InvalidAccessKeyId", store.ErrDenied, "correct accessKeyID"},
		"a wrong signature is denied":                  {403, "SignatureDoesNotMatch", store.ErrDenied, "correct accessKeyID"},
		"an expired token is denied":                   {400, "ExpiredToken", store.ErrDenied, "renew the temporary credentials"},
		"an invalid token is denied":                   {400, "InvalidToken", store.ErrDenied, "sessionToken"},
		"a wrong clock is denied, and says what to do": {403, "RequestTimeTooSkewed", store.ErrDenied, "set the clock of this node"},
		"a missing bucket is invalid":                  {404, "NoSuchBucket", store.ErrInvalid, "create the bucket"},
		"a wrong region is invalid":                    {400, "AuthorizationHeaderMalformed", store.ErrInvalid, "set region"},
		"a redirect is invalid":                        {301, "PermanentRedirect", store.ErrInvalid, "set region"},
		"a full disk is full":                          {507, "InsufficientStorage", store.ErrFull, "delete checkpoints"},
		"a quota is full":                              {403, "QuotaExceeded", store.ErrFull, "delete checkpoints"},
		"an overloaded server is unavailable":          {503, "SlowDown", store.ErrUnavailable, "overloaded"},
		"a broken server is unavailable":               {500, "InternalError", store.ErrUnavailable, "overloaded"},
		"an unknown error of a server is unavailable":  {502, "SomethingElse", store.ErrUnavailable, "overloaded"},
		"too many requests are unavailable":            {429, "TooMany", store.ErrUnavailable, "overloaded"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead { // It has no body, only this header of MinIO.
					w.Header().Set("x-minio-error-code", tt.code)
				}
				return fail(w, tt.status, tt.code, fmt.Sprint(secrets.SecretAccessKey, "\x01", r.Header))
			})
			for what, err := range everything(t, mustNew(t, f.config(), once)) {
				storetest.WantError(t, what, err, tt.kind)
				wantText(t, err, tt.advice)
				wantText(t, err, " at 127.0.0.1")
				wantNoSecrets(t, err)
			}
		})
	}
}

func TestServerThatIsNoS3(t *testing.T) {
	t.Parallel()
	f := startFake(t, func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "<html>I am a teapot")
		return true
	})
	for what, err := range everything(t, mustNew(t, f.config(), once)) {
		storetest.WantError(t, what, err, store.ErrInvalid)
		wantText(t, err, "endpoint")
	}
}

func TestWrongCredentials(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Credentials{
		"unknown ID":   {AccessKeyID: "SECRETID", SecretAccessKey: s3server.SecretAccessKey},
		"wrong secret": {AccessKeyID: s3server.AccessKeyID, SecretAccessKey: "SECRETKEY"},
		"anonymous":    {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := configOf(shared, newBucket(t, shared, minio.MakeBucketOptions{}))
			config.Credentials = c
			for what, err := range everything(t, mustNew(t, config, once)) {
				storetest.WantError(t, what, err, store.ErrDenied)
				wantNoSecrets(t, err)
			}
		})
	}
}

func TestMissingBucket(t *testing.T) {
	t.Parallel()
	for what, err := range everything(t, mustNew(t, configOf(shared, "not-there"), once)) {
		storetest.WantError(t, what, err, store.ErrInvalid)
		wantText(t, err, "not-there")
		wantText(t, err, "create the bucket")
	}
}

func TestServersThatAreNotReached(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := l.Addr().String()
	l.Close()
	tls := s3server.Start(t, s3server.Options{TLS: true})
	tests := map[string]struct {
		endpoint string
		ca       []byte
		kind     error
		advice   string
	}{
		"a host without an address is unavailable":    {"nothing.invalid", nil, store.ErrUnavailable, "correct endpoint"},
		"a port on which nobody listens":              {refused, nil, store.ErrUnavailable, "look whether the server runs"},
		"an authority that is not trusted is invalid": {tls.URL(), nil, store.ErrInvalid, "caBundle"},
		"HTTPS to a server without it is invalid":     {shared.Address, nil, store.ErrInvalid, "http://"},
		"plain HTTP to a server with HTTPS":           {"http://" + tls.Address, nil, store.ErrUnavailable, "scheme of endpoint"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := Config{Endpoint: tt.endpoint, Bucket: "bucket", CABundle: tt.ca, Credentials: secrets, DialContext: local.DialContext}
			for what, err := range everything(t, mustNew(t, config, once)) {
				storetest.WantError(t, what, err, tt.kind)
				wantText(t, err, tt.advice)
				wantNoSecrets(t, err)
			}
		})
	}
}

// Without a DialContext, the addresses of the node are refused; nothing is sent.
func TestLoopbackIsRefused(t *testing.T) {
	t.Parallel()
	f := startFake(t, func(http.ResponseWriter, *http.Request) bool { return false })
	config := f.config()
	for name, dial := range map[string]func(*Config){
		"by default":                 func(c *Config) { c.DialContext = nil },
		"if another port is allowed": func(c *Config) { c.DialContext = egress.Policy{AllowEndpoints: []string{"127.0.0.1:1"}}.DialContext },
		"by a name that leads there": func(c *Config) { c.DialContext = nil; c.Endpoint = strings.Replace(f.URL, "127.0.0.1", "localhost", 1) },
	} {
		dial(&config)
		for what, err := range everything(t, mustNew(t, config, quick)) {
			storetest.WantError(t, name+": "+what, err, store.ErrInvalid)
			wantText(t, err, "--allow-s3-endpoint=")
		}
	}
	if n := f.count(""); n != 0 {
		t.Errorf("%d requests have arrived", n)
	}
}

// A redirect would be a way to let the agent send requests elsewhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	target := startFake(t, func(http.ResponseWriter, *http.Request) bool { return false })
	f := startFake(t, func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, target.URL+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	})
	for what, err := range everything(t, mustNew(t, f.config(), once)) {
		storetest.WantError(t, what, err, store.ErrInvalid)
	}
	if n := target.count(""); n != 0 {
		t.Errorf("%d requests have followed a redirect", n)
	}
}

func TestProxiesOfTheEnvironmentAreIgnored(t *testing.T) {
	proxy := startFake(t, func(http.ResponseWriter, *http.Request) bool { return false })
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	err := mustNew(t, Config{Endpoint: "http://nothing.invalid", Bucket: "bucket"}, once).Check(t.Context())
	storetest.WantError(t, "check", err, store.ErrUnavailable)
	if n := proxy.count(""); n != 0 {
		t.Errorf("%d requests have gone through the proxy", n)
	}
}

func TestCredentialsOfRequests(t *testing.T) {
	tests := map[string]struct {
		credentials   Credentials
		signed        bool
		token, region string
	}{
		"temporary credentials have their token":      {secrets, true, secrets.SessionToken, "eu-nowhere-1"},
		"a request without credentials is not signed": {Credentials{}, false, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wrong atomic.Pointer[http.Header]
			f := startFake(t, func(_ http.ResponseWriter, r *http.Request) bool {
				authorization := r.Header.Get("Authorization")
				if (authorization != "") != tt.signed || r.Header.Get("X-Amz-Security-Token") != tt.token ||
					!strings.Contains(authorization, tt.region) || !sumIsRight(r) || strings.Contains(authorization, secrets.SecretAccessKey) {
					wrong.Store(&r.Header)
				}
				return false
			})
			config := f.config()
			config.Credentials, config.Region = tt.credentials, tt.region
			storetest.MustPut(t, mustNew(t, config, once), "a", storetest.Data("a", 20<<20))
			if h := wrong.Load(); h != nil {
				t.Errorf("a request had the headers %v", *h)
			}
		})
	}
}

// sumIsRight checks the CRC32C of a request with data.
func sumIsRight(r *http.Request) bool {
	if r.Method != http.MethodPut {
		return true
	}
	data, err := io.ReadAll(r.Body)
	sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	return err == nil && r.Header.Get("X-Amz-Checksum-Crc32c") == base64.StdEncoding.EncodeToString(sum)
}

// A server verifies the checksum, and a request that it rejects for it is repeated.
func TestServerVerifiesChecksums(t *testing.T) {
	t.Parallel()
	s := newOn(t, shared)
	w := s.newWriter(t.Context(), "a", "a")
	if err := w.startMultipart(); err != nil {
		t.Fatal(err)
	}
	_, err := s.client.PutObjectPart(t.Context(), s.config.Bucket, "a", w.uploadID, 1, strings.NewReader("data"), 4,
		minio.PutObjectPartOptions{CustomHeader: http.Header{"X-Amz-Checksum-Crc32c": {"AAAAAA=="}}, DisableContentSha256: true})
	if err == nil || !isTransient(err) {
		t.Errorf("a part with a wrong checksum: %v, code %q", err, codeOf(err))
	}
	if err := w.Abort(); err != nil {
		t.Error(err)
	}
}
