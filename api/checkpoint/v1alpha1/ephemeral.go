package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// EphemeralVolumes says what is saved of the volumes that end with the pod: its emptyDir
// volumes that a checkpointed container has mounted, and its /dev/shm.
type EphemeralVolumes struct {
	// sizeLimit is how large the files of each of these volumes may be together, for example 2Gi; by default 1Gi. With a
	// larger one the Checkpoint fails. With 0 none is saved: a restored container finds what the new pod has there.
	// +optional
	// +kubebuilder:validation:XValidation:rule="quantity(string(self)).compareTo(quantity('0')) >= 0",message="ephemeralVolumes.sizeLimit cannot be negative; 0 leaves the volumes out"
	SizeLimit *resource.Quantity `json:"sizeLimit,omitempty"`
}

// DefaultEphemeralVolumeLimit is the sizeLimit where neither the Checkpoint nor its policy has
// one, in bytes.
const DefaultEphemeralVolumeLimit = 1 << 30

// Limit returns the sizeLimit in bytes.
func (e *EphemeralVolumes) Limit() int64 {
	if e == nil || e.SizeLimit == nil {
		return DefaultEphemeralVolumeLimit
	}
	return e.SizeLimit.Value()
}
