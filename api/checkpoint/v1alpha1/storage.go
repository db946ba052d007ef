package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// Backend is the kind of a store.
type Backend string

// The backends.
const (
	BackendLocal Backend = "local"
	BackendS3    Backend = "s3"
	BackendPVC   Backend = "pvc"
)

// CheckpointStorage is where the data of a Checkpoint go.
//
// +kubebuilder:validation:XValidation:rule="self.backend == 's3' || !has(self.s3)",message="storage.s3 is set, but storage.backend is another one: set backend to s3, or remove the section s3"
// +kubebuilder:validation:XValidation:rule="self.backend == 'local' || !has(self.local)",message="storage.local is set, but storage.backend is another one: set backend to local, or remove the section local"
// +kubebuilder:validation:XValidation:rule="self.backend == 'pvc' || !has(self.pvc)",message="storage.pvc is set, but storage.backend is another one: set backend to pvc, or remove the section pvc"
// +kubebuilder:validation:XValidation:rule="self.backend == 'pvc' || !has(self.pvcTemplate)",message="storage.pvcTemplate is set, but storage.backend is another one: set backend to pvc, or remove the section pvcTemplate"
// +kubebuilder:validation:XValidation:rule="self.backend != 's3' || has(self.s3)",message="storage.backend s3 needs the section storage.s3 with endpoint and bucket"
// +kubebuilder:validation:XValidation:rule="self.backend != 'pvc' || has(self.pvc) || has(self.pvcTemplate)",message="storage.backend pvc needs storage.pvc with a claimName, or storage.pvcTemplate with accessModes and resources"
// +kubebuilder:validation:XValidation:rule="!(has(self.pvc) && has(self.pvcTemplate))",message="set either storage.pvc, an existing claim, or storage.pvcTemplate, a claim to be created"
type CheckpointStorage struct {
	// backend is pvc, s3 or local.
	// +required
	// +kubebuilder:validation:Enum=pvc;s3;local
	Backend Backend `json:"backend"`

	// s3 is a bucket of an S3 server.
	// +optional
	S3 *S3Storage `json:"s3,omitempty"`

	// local is a directory on the node of the container. It is lost with the node.
	// +optional
	Local *LocalStorage `json:"local,omitempty"`

	// pvc is an existing PersistentVolumeClaim.
	// +optional
	PVC *PVCStorage `json:"pvc,omitempty"`

	// pvcTemplate is a PersistentVolumeClaim that is created for each Checkpoint, in its namespace, and deleted with it.
	// +optional
	PVCTemplate *PVCTemplate `json:"pvcTemplate,omitempty"`
}

// S3Storage is a bucket of an S3 server.
type S3Storage struct {
	// endpoint is the server, such as s3.example.com or https://s3.example.com:9000. Without a scheme it is https.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.contains('@') && !self.contains('?') && !self.contains('#') && !self.contains(' ')",message="endpoint is a host with an optional port, such as s3.example.com: credentials belong into a Secret (credentialsSecretRef)"
	Endpoint string `json:"endpoint"`

	// bucket is the name of a bucket that exists.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9][a-z0-9.-]*[a-z0-9]$')",message="bucket has 3 to 63 lower-case letters, digits, dots and dashes; a path in the bucket belongs into prefix"
	Bucket string `json:"bucket"`

	// prefix is the beginning of all keys in the bucket, such as my-app/.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9_-]([A-Za-z0-9._-]|/[A-Za-z0-9_-])*/?$')",message="prefix has letters, digits, dots, dashes and underscores between single slashes, such as team/my-app/, and does not begin with a slash"
	Prefix string `json:"prefix,omitempty"`

	// region is the region of the bucket. Without it, it is the one in an endpoint of Amazon, else us-east-1.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Region string `json:"region,omitempty"`

	// addressing is how requests name the bucket: Path in the path, Virtual in the host. Auto is Virtual for the servers
	// of AWS, Google and Alibaba, otherwise Path.
	// +optional
	// +kubebuilder:default=Auto
	// +kubebuilder:validation:Enum=Auto;Path;Virtual
	Addressing string `json:"addressing,omitempty"`

	// caBundle has the certificates, in PEM, that are trusted besides the system's.
	// +optional
	// +kubebuilder:validation:MaxLength=131072
	// +kubebuilder:validation:XValidation:rule="self.contains('-----BEGIN CERTIFICATE-----')",message="caBundle has certificates in PEM: they begin with -----BEGIN CERTIFICATE-----"
	CABundle string `json:"caBundle,omitempty"`

	// credentialsSecretRef is a Secret with the keys accessKeyID, secretAccessKey and, optionally, sessionToken. It is in
	// the namespace of the Checkpoint; for a policy in that of the operator. Without it, the credentials of the node's
	// agent are used, for the endpoints that the operator permits.
	// +optional
	CredentialsSecretRef *SecretReference `json:"credentialsSecretRef,omitempty"`
}

// LocalStorage is a directory on the node of the container.
type LocalStorage struct {
	// path is the directory. It has to be in the one that the node's agent permits, which is the default.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.startsWith('/') && !self.contains('//') && !self.contains('/.')",message="path is absolute, without . and .. and without names that begin with a dot"
	Path string `json:"path,omitempty"`
}

// PVCStorage is an existing PersistentVolumeClaim in the namespace of the Checkpoint.
type PVCStorage struct {
	// claimName is the name of the claim.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClaimName string `json:"claimName"`
}

// PVCTemplate describes a PersistentVolumeClaim to be created.
type PVCTemplate struct {
	// accessModes are those of the claim.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	AccessModes []corev1.PersistentVolumeAccessMode `json:"accessModes"`

	// resources has the size of the claim in requests.storage.
	// +required
	// +kubebuilder:validation:XValidation:rule="has(self.requests) && 'storage' in self.requests",message="set resources.requests.storage, the size of the claim"
	Resources corev1.VolumeResourceRequirements `json:"resources"`

	// storageClassName is the class of the claim. Without it, it is the default class.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	StorageClassName *string `json:"storageClassName,omitempty"`
}

// Encryption encrypts the data before they leave the node.
type Encryption struct {
	// secretRef is a Secret with the key "key": 32 bytes. It is in the namespace of the Checkpoint; for a policy in that of
	// the operator. Without the Secret the data cannot be read any more.
	// +required
	SecretRef SecretReference `json:"secretRef"`
}

// SecretReference is the name of a Secret.
type SecretReference struct {
	// name is the name of the Secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}
