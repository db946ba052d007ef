package s3

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/storetest"
)

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*Config)
		says   []string // "" is valid
	}{
		"the example of the API is valid":      {func(c *Config) { c.Endpoint, c.Prefix = "s3.example.com", "my-app/" }, nil},
		"a prefix without a slash is valid":    {func(c *Config) { c.Prefix = "a/b" }, nil},
		"plain HTTP can be asked for":          {func(c *Config) { c.Endpoint = "http://minio.svc:9000" }, nil},
		"a slash after the host is valid":      {func(c *Config) { c.Endpoint = "https://s3.example.com/" }, nil},
		"an IPv6 endpoint is valid":            {func(c *Config) { c.Endpoint = "[fd00::1]:9000" }, nil},
		"anonymous requests are valid":         {func(c *Config) { c.Credentials = Credentials{} }, nil},
		"all styles are valid":                 {func(c *Config) { c.Addressing = AddressingVirtual }, nil},
		"an endpoint is needed":                {func(c *Config) { c.Endpoint = "" }, []string{"endpoint is empty", "s3.example.com"}},
		"an endpoint has no path":              {func(c *Config) { c.Endpoint = "s3.example.com/bucket" }, []string{"endpoint has the path", "fields of their own"}},
		"an endpoint has no query":             {func(c *Config) { c.Endpoint = "https://s3.example.com?x=1" }, []string{"endpoint has more"}},
		"an endpoint has no password":          {func(c *Config) { c.Endpoint = "https://user:hunter2@s3.example.com" }, []string{"endpoint has a user", "Secret"}},
		"an endpoint has no other scheme":      {func(c *Config) { c.Endpoint = "s3://bucket" }, []string{`endpoint has the scheme "s3"`, "https://"}},
		"an endpoint has a host":               {func(c *Config) { c.Endpoint = "https://:9000" }, []string{"endpoint has no host"}},
		"an endpoint is a URL":                 {func(c *Config) { c.Endpoint = "https://a b:hunter2\x7f" }, []string{"endpoint is no host or URL"}},
		"a bucket is needed":                   {func(c *Config) { c.Bucket = "" }, []string{"bucket is empty"}},
		"a bucket has no capitals":             {func(c *Config) { c.Bucket = "Checkpoints" }, []string{`bucket "Checkpoints"`, "lowercase"}},
		"a bucket has no path":                 {func(c *Config) { c.Bucket = "a/b" }, []string{"bucket", "prefix"}},
		"a bucket does not lead out of a path": {func(c *Config) { c.Bucket = "a..b" }, []string{"bucket"}},
		"a prefix does not start with a slash": {func(c *Config) { c.Prefix = "/a" }, []string{`prefix "/a"`, "my-app/"}},
		"a prefix does not lead to its parent": {func(c *Config) { c.Prefix = "a/../" }, []string{"prefix"}},
		"a prefix is not too long":             {func(c *Config) { c.Prefix = strings.Repeat("a/", 300) }, []string{"prefix has 600 bytes"}},
		"a region has no spaces":               {func(c *Config) { c.Region = "eu central" }, []string{"region", "eu-central-1"}},
		"a style is known":                     {func(c *Config) { c.Addressing = "dns" }, []string{`addressing "dns"`, "Virtual"}},
		"a secret key needs its ID":            {func(c *Config) { c.Credentials.AccessKeyID = "" }, []string{"accessKeyID is missing"}},
		"an ID needs its secret key":           {func(c *Config) { c.Credentials.SecretAccessKey = "" }, []string{"secretAccessKey is missing"}},
		"credentials have no line end":         {func(c *Config) { c.Credentials.SecretAccessKey += "\n" }, []string{"white space"}},
		"a CA bundle has a certificate":        {func(c *Config) { c.CABundle = []byte("hunter2") }, []string{"caBundle", "BEGIN CERTIFICATE"}},
		"all mistakes are reported at once":    {func(c *Config) { c.Endpoint, c.Bucket, c.Addressing = "", "", "x" }, []string{"endpoint", "bucket", "addressing"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := Config{Endpoint: "s3.example.com", Bucket: "checkpoints", Credentials: Credentials{AccessKeyID: "id", SecretAccessKey: "hunter2"}}
			tt.change(&c)
			_, err := New(c)
			if tt.says == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			storetest.WantError(t, "new", err, store.ErrInvalid)
			for _, text := range tt.says {
				wantText(t, err, text)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error has a secret: %v", err)
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	tests := map[string]struct{ endpoint, region, url, wantRegion string }{
		"an endpoint without a scheme is HTTPS": {"s3.example.com", "", "https://s3.example.com", "us-east-1"},
		"a port is kept":                        {"s3.example.com:9000", "", "https://s3.example.com:9000", "us-east-1"},
		"plain HTTP is kept":                    {"http://s3.example.com", "", "http://s3.example.com", "us-east-1"},
		"an endpoint of Amazon has a region":    {"s3.eu-central-1.amazonaws.com", "", "https://s3.eu-central-1.amazonaws.com", "eu-central-1"},
		"a region that is configured is used":   {"s3.example.com", "nowhere", "https://s3.example.com", "nowhere"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := Config{Endpoint: tt.endpoint, Region: tt.region}
			u, err := c.endpointURL()
			if err != nil {
				t.Fatal(err)
			}
			if u.String() != tt.url || c.region(*u) != tt.wantRegion {
				t.Errorf("got %s in %s", u, c.region(*u))
			}
		})
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	c := Config{Endpoint: "s3.example.com", Credentials: Credentials{AccessKeyID: "SECRET1", SecretAccessKey: "SECRET2", SessionToken: "SECRET3"}}
	asJSON, err := json.Marshal(map[string]any{"credentials": c.Credentials})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "credentials", c.Credentials)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "credentials", c.Credentials)
	for _, text := range []string{
		fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), c.Credentials.String(), fmt.Sprintf("%q", c.Credentials), fmt.Sprintf("%x", c.Credentials),
		string(asJSON), log.String(),
	} {
		if strings.Contains(text, "SECRET") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestServersTextIsCleaned(t *testing.T) {
	s := mustNew(t, Config{Endpoint: "s3.example.com", Bucket: "bucket", Credentials: Credentials{AccessKeyID: "SECRET1", SecretAccessKey: "SECRET2", SessionToken: "SECRET3"}}, quick)
	for _, err := range []error{
		errors.New("SECRET1\x1b[31m\nSECRET2 SECRET3 " + strings.Repeat("x", 5000)),
		&url.Error{Op: "Put", URL: "https://SECRET1", Err: errors.New("SECRET2")},
	} {
		text := s.wrap("writing", err).Error()
		if strings.Contains(text, "SECRET") || strings.ContainsAny(text, "\x1b\n") || len(text) > 600 {
			t.Errorf("the text is %q", text)
		}
	}
}
