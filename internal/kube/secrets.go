package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// errInvalidSecret is about a secret that cannot be sent to a driver.
var errInvalidSecret = errors.New("CSI drivers only get UTF-8 text: correct the secret, or encode the value as the driver expects it, such as in base64")

// SecretData reads the secrets of a call to the driver. It returns nil without a
// reference. apierrors.IsNotFound works on its error, and [IsSecretProblem].
func SecretData(ctx context.Context, from client.Reader, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	secret := &corev1.Secret{}
	if err := from.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, secret); err != nil {
		return nil, fmt.Errorf("reading secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	values := make(map[string]string, len(secret.Data))
	var invalid []string
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		if !utf8.Valid(secret.Data[key]) {
			invalid = append(invalid, fmt.Sprintf("%q", key))
		}
		values[key] = string(secret.Data[key])
	}
	if len(invalid) > 0 {
		return nil, fmt.Errorf("reading secret %s/%s: the value of key %s is not UTF-8, and %w", ref.Namespace, ref.Name, strings.Join(invalid, " and "), errInvalidSecret)
	}
	return values, nil
}

// IsSecretProblem reports whether an error of [SecretData] lasts until somebody creates or
// corrects the secret.
func IsSecretProblem(err error) bool {
	return apierrors.IsNotFound(err) || errors.Is(err, errInvalidSecret)
}
