package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/holdfast-io/holdfast/internal/store"
)

// Addressing is how a request names its bucket.
type Addressing string

const (
	// AddressingAuto is Virtual for endpoints of Amazon, Google and Alibaba, and Path for
	// others. It is the default.
	AddressingAuto Addressing = "Auto"
	// AddressingPath is https://endpoint/bucket/key.
	AddressingPath Addressing = "Path"
	// AddressingVirtual is https://bucket.endpoint/key.
	AddressingVirtual Addressing = "Virtual"
)

// DefaultRegion is what servers without regions expect.
const DefaultRegion = "us-east-1"

// Credentials are what a server knows its user by. The zero value means anonymous
// requests. They format as whether they are set, so that no message has them.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	// SessionToken is that of temporary credentials.
	SessionToken string
}

func (c Credentials) String() string {
	if c == (Credentials{}) {
		return "anonymous"
	}
	return "[redacted]"
}

// GoString keeps the credentials out of %#v.
func (c Credentials) GoString() string { return c.String() }

// MarshalText keeps the credentials out of JSON, and of logs that use it.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Config says where a bucket is and how to reach it.
type Config struct {
	// Endpoint is a host such as "s3.example.com", "minio.svc:9000" or
	// "https://s3.example.com". Plain HTTP must be asked for: "http://minio.svc:9000".
	Endpoint string
	Bucket   string
	// Prefix is a directory in the bucket, such as "my-app/". The slash at the end may be
	// missing. "" is the whole bucket.
	Prefix string
	// Region is that of the bucket; "" is the one in an Amazon endpoint, or DefaultRegion.
	Region string
	// Addressing is one of the constants; "" is AddressingAuto.
	Addressing Addressing
	// CABundle has PEM certificates of authorities that are trusted beside the system's.
	CABundle    []byte
	Credentials Credentials
	// DialContext connects to a host and port, and decides whether that is allowed. nil is
	// that of an [egress.Policy] without exceptions.
	DialContext func(ctx context.Context, network, address string) (net.Conn, error)
}

// Validate returns all mistakes, each with its field in the words of the API, and what to
// write instead. The errors are [store.ErrInvalid].
func (c Config) Validate() error {
	_, endpointErr := c.endpointURL()
	errs := errors.Join(endpointErr, c.validateBucket(), c.validatePrefix(), c.validateRegion(), c.validateAddressing(),
		c.validateCredentials(), c.validateCABundle())
	if errs == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", store.ErrInvalid, errs)
}

const writeEndpoint = "write a host such as s3.example.com or minio.storage.svc:9000"

// endpointURL returns the endpoint with its scheme. An error does not repeat the endpoint:
// it may have a password.
func (c Config) endpointURL() (*url.URL, error) {
	text := c.Endpoint
	if text == "" {
		return nil, fmt.Errorf("endpoint is empty: %s", writeEndpoint)
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("endpoint is no host or URL: %s", writeEndpoint)
	}
	if err := validateEndpoint(u); err != nil {
		return nil, err
	}
	u.Path = ""
	return u, nil
}

func validateEndpoint(u *url.URL) error {
	switch {
	case u.User != nil:
		return errors.New("endpoint has a user or a password: remove it, and put the credentials into the Secret")
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("endpoint has the scheme %q: write https://, http:// or none, which is https://", u.Scheme)
	case u.Hostname() == "" || strings.ContainsAny(u.Host, " \t"):
		return fmt.Errorf("endpoint has no host: %s", writeEndpoint)
	case strings.Trim(u.Path, "/") != "":
		return fmt.Errorf("endpoint has the path %q: remove it; the bucket and the prefix have fields of their own", u.Path)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("endpoint has more than a host and a port: %s", writeEndpoint)
	}
	return nil
}

// bucketName is the rule of Amazon S3 for buckets:
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func (c Config) validateBucket() error {
	switch {
	case c.Bucket == "":
		return errors.New("bucket is empty: write the name of a bucket that exists")
	case strings.ContainsRune(c.Bucket, '/'):
		return fmt.Errorf("bucket %q has a slash: write what follows it into prefix", c.Bucket)
	case !bucketName.MatchString(c.Bucket) || strings.Contains(c.Bucket, ".."):
		return fmt.Errorf("bucket %q is no name of a bucket: write 3 to 63 lowercase letters, digits, dots and hyphens", c.Bucket)
	}
	return nil
}

// maxPrefix leaves room for a key in the 1024 bytes of a name.
const maxPrefix = 1024 - store.MaxKeyLength - 64

func (c Config) validatePrefix() error {
	prefix := c.directory()
	switch {
	case len(prefix) > maxPrefix:
		return fmt.Errorf("prefix has %d bytes: write at most %d", len(prefix), maxPrefix)
	case prefix == "":
		return nil
	}
	if err := store.ValidatePrefix(prefix); err != nil {
		return fmt.Errorf("prefix %q is no directory: write one such as my-app/: %w", c.Prefix, err)
	}
	return nil
}

// directory returns the prefix with a slash at its end.
func (c Config) directory() string {
	if c.Prefix == "" || strings.HasSuffix(c.Prefix, "/") {
		return c.Prefix
	}
	return c.Prefix + "/"
}

var regionName = regexp.MustCompile(`^[A-Za-z0-9_-]{0,63}$`)

func (c Config) validateRegion() error {
	if !regionName.MatchString(c.Region) {
		return fmt.Errorf("region %q is no name of a region: write one such as eu-central-1, or nothing", c.Region)
	}
	return nil
}

func (c Config) validateAddressing() error {
	switch c.Addressing {
	case "", AddressingAuto, AddressingPath, AddressingVirtual:
		return nil
	default:
		return fmt.Errorf("addressing %q does not exist: write %s, %s or %s", c.Addressing, AddressingAuto, AddressingPath, AddressingVirtual)
	}
}

func (c Config) validateCredentials() error {
	k := c.Credentials
	switch {
	case k == (Credentials{}):
		return nil
	case k.AccessKeyID == "":
		return errors.New("accessKeyID is missing in the credentials: write it, or remove all of them for anonymous requests")
	case k.SecretAccessKey == "":
		return errors.New("secretAccessKey is missing in the credentials: write it, or remove all of them for anonymous requests")
	case strings.ContainsAny(k.AccessKeyID+k.SecretAccessKey+k.SessionToken, " \t\r\n"):
		return errors.New("the credentials contain white space: write them without, also without a line end")
	}
	return nil
}

func (c Config) validateCABundle() error {
	if len(c.CABundle) > 0 && !x509.NewCertPool().AppendCertsFromPEM(c.CABundle) {
		return errors.New("caBundle has no certificate: write PEM that starts with -----BEGIN CERTIFICATE-----")
	}
	return nil
}

// tlsConfig trusts the authorities of the system and of the CABundle.
func (c Config) tlsConfig() *tls.Config {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // A minimal image may have none.
	}
	pool.AppendCertsFromPEM(c.CABundle)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
