package s3

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
	"github.com/holdfast-io/holdfast/test/s3server"
)

// In a bucket with versions, what was deleted is not just hidden.
func TestDeleteRemovesAllVersions(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{Versioning: true})
	s := newVersioned(t, server)
	put := func() { // As another program would.
		_, err := s.client.Client.PutObject(t.Context(), s.config.Bucket, "a", strings.NewReader("a"), 1, minio.PutObjectOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		put()
		put()
		if err := s.client.RemoveObject(t.Context(), s.config.Bucket, "a", minio.RemoveObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	put()
	storetest.MustPut(t, s, "ab", []byte("other"))
	if versions, err := s.versions(t.Context(), "a"); err != nil || len(versions) != 7 {
		t.Fatalf("the object has the versions %q, %v, want 7: the test shows nothing", versions, err)
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if versions, err := s.versions(t.Context(), "a"); err != nil || len(versions) != 0 {
		t.Errorf("the versions %q remain, %v", versions, err)
	}
	storetest.WantData(t, s, "ab", []byte("other"))
}

func TestLockedObject(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{Versioning: true})
	s := mustNew(t, configOf(server, newBucket(t, server, minio.MakeBucketOptions{ObjectLocking: true})), once)
	storetest.MustPut(t, s, "a", []byte("a"))
	mode, until := minio.Governance, time.Now().Add(time.Hour)
	lock := minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until}
	if err := s.client.PutObjectRetention(t.Context(), s.config.Bucket, "a", lock); err != nil {
		t.Fatal(err)
	}
	err := s.Delete(t.Context(), "a")
	storetest.WantError(t, "deleting a locked object", err, store.ErrDenied)
	wantText(t, err, "remains")
	wantText(t, err, "object lock")
	storetest.WantData(t, s, "a", []byte("a"))
}

// When versions may not be listed, an object is deleted only if it has none.
func TestDeleteWithoutThePermissionToListVersions(t *testing.T) {
	for name, tt := range map[string]struct {
		version string
		code    string
		deleted bool
	}{
		"in a bucket without versions": {"", "AccessDenied", true},
		"in a bucket with versions":    {"v1", "AccessDenied", false},
		"on a server that knows none":  {"", "NotImplemented", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFake(t, func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.URL.Query().Has("versions"):
					return fail(w, http.StatusForbidden, tt.code, "no")
				case r.URL.Query().Has("uploads"):
					fmt.Fprint(w, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
					return true
				case r.Method == http.MethodHead:
					w.Header().Set("x-amz-version-id", tt.version)
					w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
					return true
				}
				return false
			})
			err := mustNew(t, f.config(), once).Delete(t.Context(), "a")
			if tt.deleted {
				if err != nil || f.count("DELETE") != 1 {
					t.Errorf("%d deletes, %v", f.count("DELETE"), err)
				}
				return
			}
			storetest.WantError(t, "delete", err, store.ErrDenied)
			wantText(t, err, "s3:ListBucketVersions")
			if f.count("DELETE") != 0 {
				t.Error("a delete has hidden the object")
			}
		})
	}
}

func TestFullServer(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{Size: "24m"})
	s := mustNew(t, configOf(server, newBucket(t, server, minio.MakeBucketOptions{})), once)
	storetest.MustPut(t, s, "before", []byte("before"))
	err := storetest.Put(t.Context(), s, "a", storetest.Data("a", 40<<20))
	storetest.WantError(t, "writing more than there is room for", err, store.ErrFull)
	wantText(t, err, "delete checkpoints")
	storetest.WantList(t, s, "", "before")
	wantNoParts(t, server, s.config.Bucket)
	storetest.MustPut(t, s, "after", storetest.Data("after", 8<<20)) // There is room again.
}

func TestReadOnlyServer(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{ReadOnly: true})
	if err := os.Mkdir(filepath.Join(server.Dir, "bucket"), 0o700); err != nil {
		t.Fatal(err)
	}
	err := mustNew(t, configOf(server, "bucket"), once).Check(t.Context())
	storetest.WantError(t, "check", err, store.ErrDenied)
}

// A request has the bucket where the style says.
func TestAddressing(t *testing.T) {
	t.Parallel()
	server := s3server.Start(t, s3server.Options{TLS: true, Domain: "s3.test"})
	bucket := newBucket(t, server, minio.MakeBucketOptions{})
	_, port, err := net.SplitHostPort(server.Address)
	if err != nil {
		t.Fatal(err)
	}
	for style, host := range map[Addressing]string{
		AddressingVirtual: bucket + ".s3.test:" + port,
		AddressingPath:    "s3.test:" + port,
		AddressingAuto:    "s3.test:" + port,
		"":                "s3.test:" + port,
	} {
		t.Run("style "+string(style), func(t *testing.T) {
			t.Parallel()
			var other atomic.Pointer[string]
			config := configOf(server, bucket)
			config.Endpoint, config.Addressing = "https://s3.test:"+port, style
			config.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				if address != host {
					other.Store(&address)
				}
				return new(net.Dialer).DialContext(ctx, network, server.Address) // Instead of a DNS server.
			}
			s := mustNew(t, config, quick)
			// In the path style, this server takes s3.test for the domain of a bucket all the same.
			key := "dir/style-" + string(style) + "x"
			storetest.MustPut(t, s, key, storetest.Data(key, 9<<20))
			storetest.WantData(t, s, key, storetest.Data(key, 9<<20))
			if got := other.Load(); got != nil {
				t.Errorf("connected to %s, want %s", *got, host)
			}
		})
	}
	config := Config{Bucket: "bucket"}
	for endpoint, want := range map[string]bool{"s3.eu-central-1.amazonaws.com": true, "s3.example.com": false} {
		config.Endpoint = endpoint
		s := mustNew(t, config, once)
		if u := s.client.EndpointURL(); strings.Contains(presigned(t, s).Host, "bucket.") != want {
			t.Errorf("style of %s", u)
		}
	}
}

// presigned returns the URL of an object. It sends no request.
func presigned(t *testing.T, s *Store) *url.URL {
	t.Helper()
	s.config.Credentials = secrets
	signed := mustNew(t, s.config, once)
	u, err := signed.client.PresignedGetObject(t.Context(), "bucket", "a", time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Servers that reject If-None-Match are asked for the object before it is written.
func TestServerThatRejectsTheCondition(t *testing.T) {
	for name, exists := range map[string]bool{"a new object is written": false, "an object that has come meanwhile is kept": true} {
		for _, size := range []int{10, 9 << 20} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, size), func(t *testing.T) {
				t.Parallel()
				var rejected, written atomic.Int64
				f := startFake(t, func(w http.ResponseWriter, r *http.Request) bool {
					publishes := r.Method == http.MethodPut && !r.URL.Query().Has("partNumber") || r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
					switch {
					case r.Header.Get("If-None-Match") != "":
						rejected.Add(1)
						return fail(w, http.StatusNotImplemented, "NotImplemented", "A header is not implemented")
					case publishes:
						written.Add(1)
					case r.Method == http.MethodHead && exists && rejected.Load() > 0:
						w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
						return true
					}
					return false
				})
				err := storetest.Put(t.Context(), mustNew(t, f.config(), once), "a", storetest.Data("a", size))
				if exists {
					storetest.WantError(t, "write", err, store.ErrExists)
				} else if err != nil {
					t.Error(err)
				}
				if wrote := written.Load() == 1; rejected.Load() != 1 || wrote == exists {
					t.Errorf("%d conditions were rejected, %d objects written", rejected.Load(), written.Load())
				}
			})
		}
	}
}

func TestListOfManyPages(t *testing.T) {
	t.Parallel()
	s := newOn(t, shared)
	dir := filepath.Join(shared.Dir, s.config.Bucket)
	var want []string
	for i := range 2*pageSize + 1 { // A server reads its directory, so they need no requests.
		key := fmt.Sprintf("key-%05d", i)
		want = append(want, key)
		if err := os.WriteFile(filepath.Join(dir, key), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := storetest.List(t, s, ""); !slices.Equal(got, want) {
		t.Errorf("listed %d keys, want %d", len(got), len(want))
	}
}
