package kube

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// secretReader has one secret, or none.
type secretReader struct {
	client.Reader
	data map[string][]byte // nil for none
}

func (r secretReader) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	secret, ok := into.(*corev1.Secret)
	if !ok || r.data == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
	}
	secret.Data = r.data
	return nil
}

func TestSecretData(t *testing.T) {
	const secret = "\xff\xfe hidden"
	tests := map[string]struct {
		data    map[string][]byte
		want    map[string]string
		err     string
		problem bool
	}{
		"text is read":       {map[string][]byte{"user": []byte("jörg"), "empty": nil}, map[string]string{"user": "jörg", "empty": ""}, "", false},
		"a missing secret":   {nil, nil, `reading secret team/credentials: secrets "credentials" not found`, true},
		"a value of bytes":   {map[string][]byte{"user": []byte("a"), "key": []byte(secret)}, nil, `reading secret team/credentials: the value of key "key" is not UTF-8`, true},
		"two values of them": {map[string][]byte{"b": []byte(secret), "a": []byte(secret)}, nil, `key "a" and "b" is not UTF-8`, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := SecretData(t.Context(), secretReader{data: tt.data}, &corev1.SecretReference{Namespace: "team", Name: "credentials"})
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if (err != nil) != (tt.err != "") || err != nil && (!strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hidden")) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if IsSecretProblem(err) != tt.problem {
				t.Errorf("a problem of the secret: %t", !tt.problem)
			}
		})
	}
	if got, err := SecretData(t.Context(), nil, nil); got != nil || err != nil {
		t.Errorf("without a reference: %v, %v", got, err)
	}
}
