package s3

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
)

// limits are the times that a store waits.
type limits struct {
	stall    time.Duration // for the next bytes of a request or its response
	complete time.Duration // for the response to the completion of an upload
	retry    time.Duration // how long a request is repeated; 0 is not at all
	backoff  time.Duration // before the first repetition; doubled for each further one
	cleanup  time.Duration // for an abort after the caller's context has ended
	settle   time.Duration // until a server has noticed that a connection was cut
}

// A stall is long enough for the 4 MiB that Linux buffers for a connection to leave at 0.6
// Mbit/s. The server copies the data of a large object when its upload is completed, so
// that takes longer than other requests.
var defaultLimits = limits{stall: time.Minute, complete: 5 * time.Minute, retry: time.Minute,
	backoff: 200 * time.Millisecond, cleanup: 30 * time.Second, settle: time.Second}

// A Store keeps objects in a bucket. It is a [store.Store].
type Store struct {
	config    Config
	client    minio.Core
	transport *http.Transport
	limits    limits
	plain     bool // whether requests go over plain HTTP
}

// New returns a store. It sends no request; Check does. The error is [store.ErrInvalid].
func New(config Config) (*Store, error) { return newStore(config, defaultLimits) }

func newStore(config Config, l limits) (*Store, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	endpoint, err := config.endpointURL()
	if err != nil {
		return nil, err
	}
	s := &Store{config: config, limits: l, plain: endpoint.Scheme == "http"}
	s.transport = newTransport(config)
	client, err := minio.NewCore(endpoint.Host, &minio.Options{
		Creds:        staticCredentials(config.Credentials),
		Secure:       !s.plain,
		Transport:    &stallTransport{base: s.transport, stall: l.stall},
		Region:       config.region(*endpoint),
		BucketLookup: config.bucketLookup(),
		MaxRetries:   1, // This package repeats requests itself.
	})
	if err != nil {
		return nil, fmt.Errorf("%w: endpoint: %w", store.ErrInvalid, err)
	}
	s.client = *client
	return s, nil
}

// Close closes the idle connections.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

func staticCredentials(c Credentials) *credentials.Credentials {
	if c == (Credentials{}) {
		return credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	}
	return credentials.NewStaticV4(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
}

func newTransport(config Config) *http.Transport {
	dial := config.DialContext
	if dial == nil {
		dial = egress.Policy{}.DialContext
	}
	return &http.Transport{
		Proxy:                 nil, // A proxy would connect to addresses that dial refuses.
		DialContext:           dial,
		TLSClientConfig:       config.tlsConfig(),
		TLSHandshakeTimeout:   15 * time.Second,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       time.Minute,
		MaxIdleConnsPerHost:   maxChunks,
		DisableCompression:    true,
	}
}

func (c Config) bucketLookup() minio.BucketLookupType {
	switch c.Addressing {
	case AddressingPath:
		return minio.BucketLookupPath
	case AddressingVirtual:
		return minio.BucketLookupDNS
	default:
		return minio.BucketLookupAuto
	}
}

// region spares the request that would ask for it, and the permission for that.
func (c Config) region(endpoint url.URL) string {
	if c.Region != "" {
		return c.Region
	}
	if region := regionOfAmazon(endpoint); region != "" {
		return region
	}
	return DefaultRegion
}

// name is that of a key's object in the bucket.
func (s *Store) name(key string) string { return s.config.directory() + key }

// Check writes, reads, lists and deletes an object. It tries all permissions that the
// other methods need. Nothing is repeated, so that a mistake shows at once.
func (s *Store) Check(ctx context.Context) error {
	once := *s
	once.limits.retry = 0
	// No key starts with a dot, so List does not show it.
	name := s.config.directory() + ".check-" + rand.Text()
	data := []byte("Holdfast has written this to check the bucket. It can be deleted.\n")
	w := once.newWriter(ctx, name, name)
	w.current = &part{chunks: [][]byte{data}, size: int64(len(data))}
	if err := w.putSmall(); err != nil {
		return fmt.Errorf("checking the bucket: %w", err)
	}
	err := errors.Join(once.checkRead(ctx, name, data), once.checkUploads(ctx, name))
	if deleteErr := once.deleteName(context.WithoutCancel(ctx), name); deleteErr != nil {
		err = errors.Join(err, fmt.Errorf("checking the bucket: the object %s remains: %w", name, deleteErr))
	}
	return err
}

func (s *Store) checkRead(ctx context.Context, name string, want []byte) error {
	o, err := s.open(ctx, name)
	if err != nil {
		return fmt.Errorf("checking the bucket: %w", err)
	}
	got := make([]byte, len(want))
	if _, err := o.ReadAt(got, 0); err != nil {
		return fmt.Errorf("checking the bucket: %w", err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: checking the bucket %s: an object is not read as it was written", store.ErrInvalid, s.config.Bucket)
	}
	found := false
	err = s.listObjects(ctx, name, func(o minio.ObjectInfo) error { found = found || o.Key == name; return nil })
	if err == nil && !found {
		err = fmt.Errorf("%w: checking the bucket %s: an object that was written is not listed", store.ErrInvalid, s.config.Bucket)
	}
	return err
}

// checkUploads starts a multipart upload and aborts it.
func (s *Store) checkUploads(ctx context.Context, name string) error {
	if err := s.newWriter(ctx, name, name).startMultipart(); err != nil {
		return fmt.Errorf("checking the bucket: %w", err)
	}
	if err := s.abortUploads(ctx, name); err != nil {
		return fmt.Errorf("checking the bucket: %w", err)
	}
	return nil
}
