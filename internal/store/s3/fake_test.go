package s3

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fake is an HTTP server that answers as a test says. It is for what a real server
// cannot be made to do.
type fake struct {
	*httptest.Server

	mu       sync.Mutex
	requests []string // method, path and query's keys
}

// startFake starts a fake. answer may return false: then the fake says that there is no
// object, and accepts writes, whose data it throws away.
func startFake(t testing.TB, answer func(http.ResponseWriter, *http.Request) bool) *fake {
	t.Helper()
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		words := []string{r.Method}
		for _, key := range []string{"uploads", "uploadId", "partNumber", "versions"} {
			if r.URL.Query().Has(key) {
				words = append(words, key)
			}
		}
		kind := strings.Join(words, " ")
		f.mu.Lock()
		f.requests = append(f.requests, kind)
		f.mu.Unlock()
		if !answer(w, r) {
			f.accept(w, r, kind)
		}
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) accept(w http.ResponseWriter, r *http.Request, kind string) {
	_, _ = io.Copy(io.Discard, r.Body)
	switch {
	case strings.HasSuffix(kind, " uploads"):
		fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>")
	case kind == "POST uploadId":
		fmt.Fprint(w, "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>a</Key></CompleteMultipartUploadResult>")
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		w.Header().Set("ETag", `"etag"`)
	case r.Method == http.MethodHead && strings.Count(strings.Trim(r.URL.Path, "/"), "/") > 0:
		w.WriteHeader(http.StatusNotFound)
	}
}

// count returns how many requests of a kind there were, such as "PUT partNumber".
func (f *fake) count(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, request := range f.requests {
		if request == kind || kind == "" {
			n++
		}
	}
	return n
}

// config is that of a bucket of the fake.
func (f *fake) config() Config {
	return Config{Endpoint: f.URL, Bucket: "bucket", DialContext: local.DialContext, Credentials: secrets}
}

// secrets must not be in any error.
var secrets = Credentials{AccessKeyID: "AKIDSECRETID", SecretAccessKey: "wJalrSECRETKEY", SessionToken: "SECRETTOKEN"}

// fail answers with an error of S3.
func fail(w http.ResponseWriter, status int, code, message string) bool {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	var escaped strings.Builder
	_ = xml.EscapeText(&escaped, []byte(message)) // A builder returns no error.
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, escaped.String())
	return true
}

// epoch is when the objects of a fake were written.
var epoch = time.Unix(1_000_000_000, 0)
