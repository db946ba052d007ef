package s3

import (
	"fmt"
	"os"
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

// timeout bounds waits for something that must happen.
const timeout = 2 * time.Minute

// shared is the server of all tests that do nothing to it.
var shared *s3server.Server

func TestMain(m *testing.M) {
	if url, ok := os.LookupEnv(childVariable); ok {
		child(url)
		return
	}
	var err error
	if shared, err = s3server.New(s3server.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	shared.Close()
	os.Exit(code)
}

// local allows the addresses of the tests' servers.
var local = egress.Policy{AllowEndpoints: []string{"127.0.0.1", "localhost"}}

// configOf is the configuration for a bucket of a server.
func configOf(s *s3server.Server, bucket string) Config {
	return Config{
		Endpoint: s.URL(), Bucket: bucket, CABundle: s.CA, DialContext: local.DialContext,
		Credentials: Credentials{AccessKeyID: s3server.AccessKeyID, SecretAccessKey: s3server.SecretAccessKey},
	}
}

// quick are limits for tests in which requests fail.
var quick = limits{stall: 20 * time.Second, complete: timeout, retry: 20 * time.Second, backoff: 10 * time.Millisecond, cleanup: timeout, settle: 200 * time.Millisecond}

func mustNew(t testing.TB, c Config, l limits) *Store {
	t.Helper()
	s, err := newStore(c, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

var buckets atomic.Int64

// newBucket creates a bucket with a name of its own.
func newBucket(t testing.TB, server *s3server.Server, options minio.MakeBucketOptions) string {
	t.Helper()
	name := fmt.Sprintf("bucket-%d", buckets.Add(1))
	s := mustNew(t, configOf(server, name), quick)
	if err := s.client.MakeBucket(t.Context(), name, options); err != nil {
		t.Fatal(err)
	}
	return name
}

// newOn returns a store in a new bucket of a server.
func newOn(t testing.TB, server *s3server.Server) *Store {
	t.Helper()
	return mustNew(t, configOf(server, newBucket(t, server, minio.MakeBucketOptions{})), quick)
}

func TestContract(t *testing.T) {
	t.Run("over HTTP", func(t *testing.T) {
		t.Parallel()
		storetest.Run(t, func(t *testing.T) store.Store { return newOn(t, shared) })
	})
	t.Run("over HTTPS with an authority of its own and a prefix", func(t *testing.T) {
		t.Parallel()
		server := s3server.Start(t, s3server.Options{TLS: true})
		bucket := newBucket(t, server, minio.MakeBucketOptions{})
		t.Cleanup(func() { wantNoParts(t, server, bucket) })
		storetest.Run(t, func(t *testing.T) store.Store {
			c := configOf(server, bucket)
			c.Prefix = "checkpoints/" + strings.ToLower(strings.Map(letters, t.Name()))
			return mustNew(t, c, quick)
		})
	})
	t.Run("in a bucket with versions", func(t *testing.T) {
		t.Parallel()
		server := s3server.Start(t, s3server.Options{Versioning: true})
		storetest.Run(t, func(t *testing.T) store.Store { return newVersioned(t, server) })
	})
}

func letters(r rune) rune {
	if 'a' <= r && r <= 'z' {
		return r
	}
	return -1
}

func newVersioned(t testing.TB, server *s3server.Server) *Store {
	t.Helper()
	s := newOn(t, server)
	if err := s.client.EnableVersioning(t.Context(), s.config.Bucket); err != nil {
		t.Fatal(err)
	}
	return s
}

// wantNoParts checks that no parts of uploads are left on the server's disk.
func wantNoParts(t testing.TB, server *s3server.Server, bucket string) {
	t.Helper()
	parts, err := server.Parts(bucket)
	if err != nil || len(parts) > 0 {
		t.Errorf("parts of uploads are left: %q, %v", parts, err)
	}
}
