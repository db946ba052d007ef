package csi

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// minSecretLength is the length in bytes from which the value of a secret is
// redacted. Shorter ones cannot be distinguished from ordinary words.
const minSecretLength = 4

// logWithoutSecrets is the outermost interceptor: neither its log lines nor its
// errors contain secrets of the request. It logs messages at V(5).
func logWithoutSecrets(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error { //nolint:revive // The signature is gRPC's.
	log := klog.FromContext(ctx).V(5)
	if log.Enabled() { // formatted here, so that no log sink gets the messages themselves
		log.Info("Sent a request to the driver", "method", method, "request", kube.Truncate(protosanitizer.StripSecrets(req).String(), maxLoggedBytes))
	}
	err := redactError(next(ctx, method, req, reply, cc, opts...), req)
	if log.Enabled() {
		log.Info("Received a response from the driver", "method", method, "response", kube.Truncate(protosanitizer.StripSecrets(reply).String(), maxLoggedBytes), "code", status.Code(err), "err", err)
	}
	return err
}

// redactError removes the values of the request's secrets from the error message,
// because drivers repeat their input or the command that they ran, and shortens it: it
// gets into logs, events and statuses. It also drops
// the details of the status: the specification forbids them ("Error Scheme"), and
// they may contain anything.
func redactError(err error, req any) error {
	if err == nil {
		return nil
	}
	resp, ok := status.FromError(err)
	text := kube.Truncate(redact(resp.Message(), secretsOf(req)), maxMessageBytes)
	if !ok {
		return errors.New(text) // not a status, so not a response of the driver: it must not look like one
	}
	return status.Error(resp.Code(), text)
}

func secretsOf(req any) map[string]string {
	if s, ok := req.(interface{ GetSecrets() map[string]string }); ok {
		return s.GetSecrets()
	}
	return nil
}

// redact replaces each value: as it is, without white space around it, and as it is
// written in URLs, by Go's %q, and by Kubernetes.
func redact(text string, secrets map[string]string) string {
	var forms []string
	for _, whole := range secrets {
		for _, value := range []string{whole, strings.TrimSpace(whole)} {
			if len(value) < minSecretLength {
				continue
			}
			forms = append(forms, value, url.QueryEscape(value), url.PathEscape(value),
				strings.Trim(strconv.Quote(value), `"`), base64.StdEncoding.EncodeToString([]byte(value)))
		}
	}
	// Longest first: a secret may be part of another one.
	slices.SortFunc(forms, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(a, b)) })
	for _, form := range forms {
		text = strings.ReplaceAll(text, form, "***stripped***")
	}
	return text
}
