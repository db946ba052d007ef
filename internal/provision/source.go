package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// The kinds of sources that are ours to serve.
const (
	KindSnapshot = "VolumeSnapshot"
	KindClaim    = "PersistentVolumeClaim"

	GroupSnapshot = "snapshot.storage.k8s.io"
)

// A Source names what a new volume is filled from.
type Source struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String names the source as people write it.
func (s Source) String() string { return fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Name) }

// Key is the source in a form that can be read back.
func (s Source) Key() string { return s.Kind + "/" + s.Namespace + "/" + s.Name }

// Hash is the source as the value of a label.
func (s Source) Hash() string {
	sum := sha256.Sum256([]byte(s.Key()))
	return hex.EncodeToString(sum[:16])
}

// ParseKey reads the key of a source.
func ParseKey(key string) (Source, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 {
		return Source{}, false
	}
	return Source{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, true
}

// sourceOf is what a claim is to be filled from: nil for nothing. Ours is false
// for a kind that others fill in. dataSource comes before dataSourceRef; for
// what is in the claim's own namespace the API server keeps the two the same.
func sourceOf(claim *corev1.PersistentVolumeClaim) (from *Source, ours bool) {
	var group string
	switch one, two := claim.Spec.DataSource, claim.Spec.DataSourceRef; {
	case one != nil:
		group = ptr.Deref(one.APIGroup, "")
		from = &Source{Kind: one.Kind, Namespace: claim.Namespace, Name: one.Name}
	case two != nil:
		group = ptr.Deref(two.APIGroup, "")
		from = &Source{Kind: two.Kind, Namespace: ptr.Deref(two.Namespace, claim.Namespace), Name: two.Name}
		if from.Namespace == "" {
			from.Namespace = claim.Namespace
		}
	default:
		return nil, true
	}
	ours = (group == GroupSnapshot && from.Kind == KindSnapshot) || (group == "" && from.Kind == KindClaim)
	return from, ours
}

// Capability is what the driver must announce to fill a volume from the source.
func (s *Source) Capability() csipb.ControllerServiceCapability_RPC_Type {
	if s.Kind == KindSnapshot {
		return csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT
	}
	return csipb.ControllerServiceCapability_RPC_CLONE_VOLUME
}

// An Resolved is a source as it was found in the cluster, at the API server
// itself: exactly one of snapshot and claim is for its kind.
type Resolved struct {
	Source
	Snapshot *SnapshotSource
	Claim    *ClaimSource
	// Granted is whether the source's namespace lets the claim's namespace use it.
	Granted bool
}

// ContentSource checks that the claim may be filled from the origin and returns what
// the driver is told. Its errors are for the owner of the claim; all of them
// can go away by themselves, so the claim is tried again.
func (o *Resolved) ContentSource(s state, opts *Options) (*csipb.VolumeContentSource, error) {
	if o.Namespace != s.claim.Namespace && !o.Granted {
		return nil, fmt.Errorf("no ReferenceGrant in namespace %s lets claims of namespace %s use %s", o.Namespace, s.claim.Namespace, o)
	}
	if o.Kind == KindSnapshot {
		handle, err := o.Snapshot.check(s, opts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o, err)
		}
		return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{
			Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: handle},
		}}, nil
	}
	handle, err := o.Claim.check(s, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o, err)
	}
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{
		Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: handle},
	}}, nil
}

// volumeMode is the volume mode of a claim or volume: Filesystem unless it says
// otherwise.
func volumeMode(mode *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	return ptr.Deref(mode, corev1.PersistentVolumeFilesystem)
}
