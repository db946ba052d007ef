package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
)

var errCorrupted = errors.New("the server has received other data than were sent")

// A meaning is what an error means for the caller, and what to do about it.
type meaning struct {
	kind   error // of the store package; nil if there is none
	advice string
	again  bool // whether the same request may succeed
}

var (
	wrongKey   = meaning{kind: store.ErrDenied, advice: "correct accessKeyID and secretAccessKey in the Secret with the credentials"}
	oldToken   = meaning{kind: store.ErrDenied, advice: "renew the temporary credentials in the Secret, or correct their sessionToken"}
	full       = meaning{kind: store.ErrFull, advice: "delete checkpoints, or raise the quota or the size of the store"}
	overloaded = meaning{kind: store.ErrUnavailable, advice: "the server is overloaded or restarts", again: true}
	damaged    = meaning{kind: store.ErrUnavailable, advice: "the data were damaged on their way: look at the network between the node and the server", again: true}
	notS3      = meaning{kind: store.ErrInvalid, advice: "write the address of an S3 server into endpoint: this one is none, or does not support what is needed"}
)

// meanings are those of the codes of S3 servers:
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
var meanings = map[string]meaning{
	"AccessDenied":                   {kind: store.ErrDenied, advice: "permit the actions that docs/reference/stores.md lists, for this bucket and prefix"},
	"AccountProblem":                 {kind: store.ErrDenied, advice: "ask the operator of the S3 server about the account"},
	"AllAccessDisabled":              {kind: store.ErrDenied, advice: "ask the operator of the S3 server about the bucket"},
	"InvalidAccessKeyId":             wrongKey,
	"SignatureDoesNotMatch":          wrongKey,
	"XAdminUserNotFound":             wrongKey, // versitygw
	"ExpiredToken":                   oldToken,
	"InvalidToken":                   oldToken,
	"TokenRefreshRequired":           oldToken,
	"RequestTimeTooSkewed":           {kind: store.ErrDenied, advice: "set the clock of this node, or that of the server: they differ by more than 15 minutes"},
	"NoSuchBucket":                   {kind: store.ErrInvalid, advice: "create the bucket, or correct its name"},
	"InvalidBucketName":              {kind: store.ErrInvalid, advice: "correct the name of the bucket"},
	"AuthorizationHeaderMalformed":   {kind: store.ErrInvalid, advice: "set region to that of the bucket"},
	"IllegalLocationConstraint":      {kind: store.ErrInvalid, advice: "set region to that of the bucket"},
	"PermanentRedirect":              {kind: store.ErrInvalid, advice: "set region and endpoint to those of the bucket"},
	"TemporaryRedirect":              {kind: store.ErrInvalid, advice: "set region and endpoint to those of the bucket"},
	"NotImplemented":                 notS3,
	"MethodNotAllowed":               notS3,
	"QuotaExceeded":                  full,
	"InsufficientStorage":            full,
	"InsufficientCapacity":           full,
	"XMinioStorageFull":              full,
	"XMinioAdminBucketQuotaExceeded": full,
	"NoSuchKey":                      {kind: store.ErrNotFound, advice: "it was deleted"},
	"NoSuchVersion":                  {kind: store.ErrNotFound, advice: "it was deleted"},
	"SlowDown":                       overloaded,
	"SlowDownRead":                   overloaded,
	"SlowDownWrite":                  overloaded,
	"ServiceUnavailable":             overloaded,
	"InternalError":                  overloaded,
	"RequestTimeout":                 overloaded,
	"RequestLimitExceeded":           overloaded,
	"ConditionalRequestConflict":     overloaded,
	"OperationAborted":               overloaded,
	"BadDigest":                      damaged,
	"InvalidDigest":                  damaged,
	"IncompleteBody":                 damaged,
	"XAmzContentSHA256Mismatch":      damaged,
	"XAmzContentChecksumMismatch":    damaged,
	"ContentSHA256Mismatch":          damaged,
}

// meaningOf finds what an error of a request means.
func meaningOf(err error) meaning {
	var response minio.ErrorResponse
	switch {
	case errors.Is(err, egress.ErrRefused):
		return meaning{kind: store.ErrInvalid}
	case errors.Is(err, errCorrupted):
		return damaged
	case errors.As(err, &response):
		return meaningOfResponse(response)
	}
	return meaningOfNetwork(err)
}

func meaningOfResponse(r minio.ErrorResponse) meaning {
	if isLocked(r) {
		return meaning{kind: store.ErrDenied, advice: "wait until the object lock has expired, or let an administrator of the bucket remove it"}
	}
	if m, ok := meanings[r.Code]; ok {
		if r.Region != "" && strings.Contains(m.advice, "region") {
			m.advice = fmt.Sprintf("set region to %.40q, that of the bucket", r.Region)
		}
		return m
	}
	if strings.Contains(r.Message, "HTTP request to an HTTPS server") {
		return meaning{kind: store.ErrInvalid, advice: "write https:// in endpoint"}
	}
	if m := meaningOfStatus(r.StatusCode); m.kind != nil {
		return m
	}
	if strings.Contains(r.Code, " ") { // It is the text of an HTTP status: the body was no S3 error.
		return notS3
	}
	return meaning{}
}

// meaningOfStatus finds what an HTTP status means whose code is not known.
func meaningOfStatus(status int) meaning {
	switch status {
	case http.StatusInsufficientStorage:
		return full
	case http.StatusUnauthorized, http.StatusForbidden:
		return meanings["AccessDenied"]
	case http.StatusTooManyRequests, http.StatusRequestTimeout:
		return overloaded
	}
	switch status / 100 {
	case 5:
		return overloaded
	case 3:
		return meanings["PermanentRedirect"]
	}
	return meaning{}
}

// meaningOfNetwork finds what it means that there was no response.
func meaningOfNetwork(err error) meaning {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		dns       *net.DNSError
		network   net.Error
	)
	switch {
	case errors.As(err, &authority):
		return meaning{kind: store.ErrInvalid, advice: "put the certificate of the authority into caBundle"}
	case errors.As(err, &hostname):
		return meaning{kind: store.ErrInvalid, advice: "use an endpoint that is in the certificate, or set addressing to Path"}
	case errors.As(err, &verify):
		return meaning{kind: store.ErrInvalid, advice: "renew the certificate of the server, or set the clock of this node"}
	case errors.As(err, &record) || strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return meaning{kind: store.ErrInvalid, advice: "the server does not speak HTTPS on this port: correct it, or write http:// in endpoint if that is wanted"}
	case strings.Contains(err.Error(), "malformed HTTP response"):
		return notS3
	case errors.As(err, &dns):
		return meaning{kind: store.ErrUnavailable, advice: "correct endpoint, or look at the DNS of this node", again: !dns.IsNotFound}
	case errors.Is(err, errStalled):
		return meaning{kind: store.ErrUnavailable, advice: "look at the server and at the network to it", again: true}
	case errors.As(err, &network), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return meaning{kind: store.ErrUnavailable, advice: "look whether the server runs, is reached from this node, and speaks what the scheme of endpoint says", again: true}
	}
	return meaning{}
}

func isTransient(err error) bool { return !isWrapped(err) && meaningOf(err).again }

// codeOf returns the code of a server's error, or "".
func codeOf(err error) string {
	var response minio.ErrorResponse
	if errors.As(err, &response) {
		return response.Code
	}
	return ""
}

// isLocked is whether an object lock forbids a request. Servers have no common code.
func isLocked(err error) bool {
	var response minio.ErrorResponse
	return errors.As(err, &response) && strings.Contains(strings.ToLower(response.Code+" "+response.Message), "lock")
}

// rejectsCondition is whether a server rejects If-None-Match for a write, as those do that
// do not know it.
func rejectsCondition(err error) bool {
	switch codeOf(err) {
	case minio.NotImplemented:
		return true
	case "InvalidArgument", "InvalidRequest":
		return strings.Contains(strings.ToLower(err.Error()), "if-none-match") || strings.Contains(strings.ToLower(err.Error()), "condition")
	}
	return false
}

func isWrapped(err error) bool {
	for _, kind := range []error{store.ErrNotFound, store.ErrExists, store.ErrInvalid, store.ErrDenied, store.ErrFull, store.ErrUnavailable} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// wrap says what failed, where, why and what to do. It returns nil for nil.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	var network *net.OpError // A timeout of one is a deadline, but not that of the context.
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &network)
	if ended || isWrapped(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	m := meaningOf(err)
	doing = fmt.Sprintf("%s (bucket %s at %s)", doing, s.config.Bucket, s.client.EndpointURL().Host)
	err = &cause{text: s.textOf(err), err: err}
	switch {
	case m.kind == nil:
		return fmt.Errorf("%s: %w", doing, err)
	case m.advice == "":
		return fmt.Errorf("%s: %w: %w", doing, m.kind, err)
	}
	return fmt.Errorf("%s: %w: %w: %s", doing, m.kind, err, m.advice)
}

// A cause is an error with a text that is fit for a status.
type cause struct {
	text string
	err  error
}

func (c *cause) Error() string { return c.text }
func (c *cause) Unwrap() error { return c.err }

const maxCause = 300 // characters; a server may say anything

// textOf returns the text of an error without URLs, control characters and credentials.
// A server may repeat what it was sent.
func (s *Store) textOf(err error) string {
	var response minio.ErrorResponse
	var request *url.Error
	text := err.Error()
	switch {
	case errors.As(err, &response):
		text = response.Code + ": " + response.Error()
	case strings.Contains(text, "Connection closed by foreign host"): // It has the URL.
		text = "the server has closed the connection"
	case errors.As(err, &request):
		text = request.Err.Error()
	}
	text, _, _ = strings.Cut(text, "AWS4-HMAC-SHA256") // The signature of a request.
	for _, secret := range []string{s.config.Credentials.SecretAccessKey, s.config.Credentials.SessionToken, s.config.Credentials.AccessKeyID} {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[redacted]")
		}
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if characters := []rune(text); len(characters) > maxCause {
		text = string(characters[:maxCause]) + "…"
	}
	return text
}
