package source

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// Kinds of sources that a CSI driver can fill a volume from.
const (
	KindSnapshot = "VolumeSnapshot"
	KindClaim    = "PersistentVolumeClaim"

	GroupSnapshot = "snapshot.storage.k8s.io"
)

// A Source names the object that a new volume is filled from. Its JSON is part of
// the record of a pending operation.
type Source struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// Of returns the source that a claim names, nil for none. Supported is false for
// kinds that a volume populator fills. dataSource comes before dataSourceRef; the
// API server keeps both equal for sources in the claim's own namespace.
func Of(claim *corev1.PersistentVolumeClaim) (from *Source, supported bool) {
	var group string
	switch local, ref := claim.Spec.DataSource, claim.Spec.DataSourceRef; {
	case local != nil:
		group = ptr.Deref(local.APIGroup, "")
		from = &Source{Kind: local.Kind, Namespace: claim.Namespace, Name: local.Name}
	case ref != nil:
		group = ptr.Deref(ref.APIGroup, "")
		from = &Source{Kind: ref.Kind, Namespace: ptr.Deref(ref.Namespace, claim.Namespace), Name: ref.Name}
		if from.Namespace == "" {
			from.Namespace = claim.Namespace
		}
	default:
		return nil, true
	}
	supported = (group == GroupSnapshot && from.Kind == KindSnapshot) || (group == "" && from.Kind == KindClaim)
	return from, supported
}

// String returns the source as messages name it.
func (s Source) String() string { return fmt.Sprintf("%s %s/%s", s.Kind, s.Namespace, s.Name) }

// referent returns the source as the object of a ReferenceGrant.
func (s Source) referent() kube.Referent {
	kind := schema.GroupKind{Kind: s.Kind}
	if s.Kind == KindSnapshot {
		kind.Group = GroupSnapshot
	}
	return kube.Referent{GroupKind: kind, NamespacedName: s.ObjectKey()}
}

// Key returns the source in a form that [ParseKey] reads.
func (s Source) Key() string { return s.Kind + "/" + s.Namespace + "/" + s.Name }

// ParseKey reads what [Source.Key] has returned.
func ParseKey(key string) (Source, bool) {
	parts := strings.Split(key, "/")
	if len(parts) != 3 {
		return Source{}, false
	}
	return Source{Kind: parts[0], Namespace: parts[1], Name: parts[2]}, true
}

// Hash returns the source as the value of a label.
func (s Source) Hash() string {
	sum := sha256.Sum256([]byte(s.Key()))
	return hex.EncodeToString(sum[:16])
}

// Capability returns what the driver must announce to fill a volume from the source.
func (s Source) Capability() csipb.ControllerServiceCapability_RPC_Type {
	if s.Kind == KindSnapshot {
		return csipb.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT
	}
	return csipb.ControllerServiceCapability_RPC_CLONE_VOLUME
}

// ObjectKey returns the key of the object that the source names.
func (s Source) ObjectKey() types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}
