package node

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/s3"
)

// secrets answers reads of Secrets, by their keys.
type secrets map[client.ObjectKey]map[string][]byte

func (s secrets) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	data, ok := s[key]
	secret, isSecret := into.(*corev1.Secret)
	if !ok || !isSecret {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
	}
	secret.Data = data
	return nil
}

func (s secrets) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("the agent must not list Secrets")
}

func TestOpen(t *testing.T) {
	bucket := func(change func(*v1alpha1.S3Storage)) *v1alpha1.CheckpointStorage {
		s := &v1alpha1.S3Storage{Endpoint: "s3.example.com", Bucket: "checkpoints", Addressing: "Auto"}
		change(s)
		return &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendS3, S3: s}
	}
	directory := func(path string) *v1alpha1.CheckpointStorage {
		return &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal, Local: &v1alpha1.LocalStorage{Path: path}}
	}
	for name, row := range map[string]struct {
		storage  *v1alpha1.CheckpointStorage
		location string // of the key "k"
		err      error
		says     string
	}{
		"local uses the permitted directory": {
			storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendLocal}, location: "n1:/data/k",
		},
		"local may use a directory in it": {storage: directory("/data/team"), location: "n1:/data/team/k"},
		"local may not use another one":   {storage: directory("/database"), err: store.ErrInvalid, says: "outside of /data"},
		"local may not leave it":          {storage: directory("/data/../etc"), err: store.ErrInvalid, says: "outside of /data"},
		"s3 with a Secret": {
			storage:  bucket(func(s *v1alpha1.S3Storage) { s.CredentialsSecretRef = &v1alpha1.SecretReference{Name: "mine"} }),
			location: "s3://checkpoints/k",
		},
		"s3 with a prefix": {
			storage: bucket(func(s *v1alpha1.S3Storage) {
				s.Prefix, s.CredentialsSecretRef = "my-app/", &v1alpha1.SecretReference{Name: "mine"}
			}),
			location: "s3://checkpoints/my-app/k",
		},
		"a Secret that does not exist": {
			storage: bucket(func(s *v1alpha1.S3Storage) { s.CredentialsSecretRef = &v1alpha1.SecretReference{Name: "none"} }),
			err:     store.ErrInvalid, says: "Secret team/none (credentialsSecretRef) does not exist",
		},
		"the agent's own credentials are not for any endpoint": {
			storage: bucket(func(*v1alpha1.S3Storage) {}), err: store.ErrDenied, says: "--own-credentials-for",
		},
		"the agent's own credentials for a permitted endpoint": {
			storage: bucket(func(s *v1alpha1.S3Storage) { s.Endpoint = "own.example.com" }), location: "s3://checkpoints/k",
		},
		"half of the credentials": {
			storage: bucket(func(s *v1alpha1.S3Storage) { s.CredentialsSecretRef = &v1alpha1.SecretReference{Name: "half"} }),
			err:     store.ErrInvalid,
		},
		"pvc waits until the volume is mounted": {
			storage: &v1alpha1.CheckpointStorage{Backend: v1alpha1.BackendPVC}, err: store.ErrUnavailable, says: "not mounted",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &Stores{
				Node: "n1", LocalPath: "/data", OwnCredentialsFor: []string{"own.example.com"},
				OwnCredentials: s3.Credentials{AccessKeyID: "agent", SecretAccessKey: "secret"},
				Secrets: secrets{
					{Namespace: "team", Name: "mine"}: {"accessKeyID": []byte("id"), "secretAccessKey": []byte("secret")},
					{Namespace: "team", Name: "half"}: {"accessKeyID": []byte("id")},
				},
			}
			place, err := s.Open(t.Context(), &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{Storage: row.storage, StorageNamespace: "team"}})
			if row.err != nil {
				if !errors.Is(err, row.err) || !strings.Contains(err.Error(), row.says) {
					t.Errorf("got %v, want %v with %q", err, row.err, row.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := place.Location("k"); got != row.location {
				t.Errorf("the location is %s, want %s", got, row.location)
			}
		})
	}
}

func TestKeyOfEncryption(t *testing.T) {
	s := &Stores{Secrets: secrets{
		{Namespace: "team", Name: "good"}: {"key": []byte(strings.Repeat("k\x01", 16))},
		{Namespace: "team", Name: "bad"}:  {"key": []byte("short")},
	}}
	for name, row := range map[string]struct{ secret, says string }{
		"a key of 32 bytes":            {"good", ""},
		"a key that is too short":      {"bad", "Secret team/bad: key"},
		"a Secret that does not exist": {"none", "Secret team/none (encryption.secretRef) does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := s.Key(t.Context(), &v1alpha1.Checkpoint{Status: v1alpha1.CheckpointStatus{
				Encryption: &v1alpha1.Encryption{SecretRef: v1alpha1.SecretReference{Name: row.secret}}, EncryptionNamespace: "team",
			}})
			if row.says == "" && (err != nil || key == nil) {
				t.Errorf("got %v", err)
			}
			if row.says != "" && (!errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), row.says)) {
				t.Errorf("got %v, want one with %q", err, row.says)
			}
		})
	}
	if key, err := s.Key(t.Context(), &v1alpha1.Checkpoint{}); key != nil || err != nil {
		t.Errorf("without encryption: got a key or %v", err)
	}
}
