package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/api/checkpoint/v1alpha1"
	"github.com/holdfast-io/holdfast/internal/archive"
	"github.com/holdfast-io/holdfast/internal/store"
	"github.com/holdfast-io/holdfast/internal/store/egress"
	"github.com/holdfast-io/holdfast/internal/store/local"
	"github.com/holdfast-io/holdfast/internal/store/s3"
)

// A Place is the store of a Checkpoint.
type Place struct {
	store.Store
	// base is the location of the store.
	base string
}

// Location returns where a key is, for the user.
func (p *Place) Location(key string) string { return p.base + key }

// Stores opens the stores of Checkpoints. Secrets are read from the API server each time:
// the agent must not be able to list them.
type Stores struct {
	Secrets client.Reader
	// Node is the name of the node, and LocalPath the directory of backend local.
	Node, LocalPath string
	// KubeletDir is the kubelet's directory, as the agent sees it.
	KubeletDir string
	// Egress says to which addresses the agent may connect.
	Egress egress.Policy
	// OwnCredentialsFor are the endpoints, as a Checkpoint writes them, for which a Checkpoint
	// without credentials uses OwnCredentials.
	OwnCredentialsFor []string
	OwnCredentials    s3.Credentials
	// Wrap wraps each store that is opened, if it is set: tests interrupt its calls.
	Wrap func(store.Store) store.Store
}

// Open returns the store of a Checkpoint.
func (s *Stores) Open(ctx context.Context, c *v1alpha1.Checkpoint) (*Place, error) {
	place, err := s.open(ctx, c)
	if err == nil && s.Wrap != nil {
		place.Store = s.Wrap(place.Store)
	}
	return place, err
}

func (s *Stores) open(ctx context.Context, c *v1alpha1.Checkpoint) (*Place, error) {
	storage := c.Status.Storage
	switch {
	case storage == nil:
		return nil, fmt.Errorf("%w: the status of the Checkpoint has no storage", store.ErrInvalid)
	case storage.Backend == v1alpha1.BackendLocal:
		return s.openLocal(storage.Local)
	case storage.Backend == v1alpha1.BackendS3:
		return s.openS3(ctx, c)
	case storage.Backend == v1alpha1.BackendPVC:
		return s.openVolume(c.Status.Volume)
	default:
		return nil, fmt.Errorf("%w: this version does not have the backend %s: use s3, local or pvc", store.ErrInvalid, storage.Backend)
	}
}

func (s *Stores) openLocal(l *v1alpha1.LocalStorage) (*Place, error) {
	dir := s.LocalPath
	if l != nil && l.Path != "" {
		dir = filepath.Clean(l.Path)
	}
	if dir != s.LocalPath && !strings.HasPrefix(dir, s.LocalPath+"/") {
		return nil, fmt.Errorf("%w: storage.local.path %s is outside of %s, the directory that the node's agent permits (--local-path): name one in it", store.ErrInvalid, dir, s.LocalPath)
	}
	return &Place{local.New(dir), s.Node + ":" + dir + "/"}, nil
}

func (s *Stores) openS3(ctx context.Context, c *v1alpha1.Checkpoint) (*Place, error) {
	from := c.Status.Storage.S3
	config := s3.Config{
		Endpoint: from.Endpoint, Bucket: from.Bucket, Prefix: from.Prefix, Region: from.Region,
		Addressing: s3.Addressing(from.Addressing), CABundle: []byte(from.CABundle), DialContext: s.Egress.DialContext,
	}
	var err error
	if config.Credentials, err = s.credentials(ctx, c); err != nil {
		return nil, err
	}
	bucket, err := s3.New(config)
	if err != nil {
		return nil, err
	}
	base := "s3://" + from.Bucket + "/"
	if from.Prefix != "" {
		base += strings.TrimSuffix(from.Prefix, "/") + "/"
	}
	return &Place{bucket, base}, nil
}

// credentials returns those of the Secret that a Checkpoint names, or the agent's own.
func (s *Stores) credentials(ctx context.Context, c *v1alpha1.Checkpoint) (s3.Credentials, error) {
	from := c.Status.Storage.S3
	ref := from.CredentialsSecretRef
	switch {
	case ref == nil && slices.Contains(s.OwnCredentialsFor, from.Endpoint):
		return s.OwnCredentials, nil
	case ref == nil:
		return s3.Credentials{}, fmt.Errorf("%w: there is no credentialsSecretRef, and the agent may not use its own credentials for the endpoint %s: name a Secret with accessKeyID and secretAccessKey, or have the administrator add the endpoint to --own-credentials-for", store.ErrDenied, from.Endpoint)
	}
	data, err := s.secret(ctx, c.Status.StorageNamespace, ref.Name, "credentialsSecretRef")
	if err != nil {
		return s3.Credentials{}, err
	}
	return s3.Credentials{
		AccessKeyID: string(data["accessKeyID"]), SecretAccessKey: string(data["secretAccessKey"]), SessionToken: string(data["sessionToken"]),
	}, nil
}

// Key returns the key with which a Checkpoint is encrypted; nil for none.
func (s *Stores) Key(ctx context.Context, c *v1alpha1.Checkpoint) (*archive.Key, error) {
	if c.Status.Encryption == nil {
		return nil, nil
	}
	name := c.Status.Encryption.SecretRef.Name
	data, err := s.secret(ctx, c.Status.EncryptionNamespace, name, "encryption.secretRef")
	if err != nil {
		return nil, err
	}
	key, err := archive.ParseKey(data["key"])
	if err != nil {
		return nil, fmt.Errorf("%w: Secret %s/%s: key: %w", store.ErrInvalid, c.Status.EncryptionNamespace, name, err)
	}
	return &key, nil
}

// secret reads a Secret that a field names.
func (s *Stores) secret(ctx context.Context, namespace, name, field string) (map[string][]byte, error) {
	secret := &corev1.Secret{}
	err := s.Secrets.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("%w: Secret %s/%s (%s) does not exist: create it", store.ErrInvalid, namespace, name, field)
	}
	if err != nil {
		return nil, fmt.Errorf("reading Secret %s/%s (%s): %w", namespace, name, field, err)
	}
	return secret.Data, nil
}
