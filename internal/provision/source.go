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
	kindSnapshot = "VolumeSnapshot"
	kindClaim    = "PersistentVolumeClaim"

	groupSnapshot = "snapshot.storage.k8s.io"
)

// A source names what a new volume is filled from.
type source struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// String names the source as people write it.
func (s source) String() string { return fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Name) }

// key is the source in a form that can be read back.
func (s source) key() string { return s.Kind + "/" + s.Namespace + "/" + s.Name }

// hash is the source as the value of a label.
func (s source) hash() string {
	sum := sha256.Sum256([]byte(s.key()))
	return hex.EncodeToString(sum[:16])
}

// readSource reads the key of a source.
func readSource(key string) (source, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 {
		return source{}, false
	}
	return source{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, true
}

// sourceOf is what a claim is to be filled from: nil for nothing. Ours is false
// for a kind that others fill in. dataSource comes before dataSourceRef; for
// what is in the claim's own namespace the API server keeps the two the same.
func sourceOf(claim *corev1.PersistentVolumeClaim) (from *source, ours bool) {
	var group string
	switch one, two := claim.Spec.DataSource, claim.Spec.DataSourceRef; {
	case one != nil:
		group = ptr.Deref(one.APIGroup, "")
		from = &source{Kind: one.Kind, Namespace: claim.Namespace, Name: one.Name}
	case two != nil:
		group = ptr.Deref(two.APIGroup, "")
		from = &source{Kind: two.Kind, Namespace: ptr.Deref(two.Namespace, claim.Namespace), Name: two.Name}
		if from.Namespace == "" {
			from.Namespace = claim.Namespace
		}
	default:
		return nil, true
	}
	ours = (group == groupSnapshot && from.Kind == kindSnapshot) || (group == "" && from.Kind == kindClaim)
	return from, ours
}

// capability is what the driver must announce to fill a volume from the source.
func (s *source) capability() csipb.ControllerServiceCapability_RPC_Type {
	if s.Kind == kindSnapshot {
		return csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT
	}
	return csipb.ControllerServiceCapability_RPC_CLONE_VOLUME
}

// An origin is a source as it was found in the cluster, at the API server
// itself: exactly one of snapshot and claim is for its kind.
type origin struct {
	source
	snapshot *found
	claim    *cloned
	// granted is whether the source's namespace lets the claim's namespace use it.
	granted bool
}

// content checks that the claim may be filled from the origin and returns what
// the driver is told. Its errors are for the owner of the claim; all of them
// can go away by themselves, so the claim is tried again.
func (o *origin) content(s seen, opts *Options) (*csipb.VolumeContentSource, error) {
	if o.Namespace != s.claim.Namespace && !o.granted {
		return nil, fmt.Errorf("no ReferenceGrant in namespace %s lets claims of namespace %s use %s", o.Namespace, s.claim.Namespace, o)
	}
	if o.Kind == kindSnapshot {
		handle, err := o.snapshot.check(s, opts)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o, err)
		}
		return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{
			Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: handle},
		}}, nil
	}
	handle, err := o.claim.check(s, opts)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o, err)
	}
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{
		Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: handle},
	}}, nil
}

// modeOf is the volume mode of a claim or volume: Filesystem unless it says
// otherwise.
func modeOf(mode *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	return ptr.Deref(mode, corev1.PersistentVolumeFilesystem)
}
