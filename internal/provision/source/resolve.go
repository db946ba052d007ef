package source

import (
	"context"
	"errors"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
)

// A Resolver reads sources from the API server: few claims have one, and the
// snapshot CRDs need not be installed, so nothing is cached or watched.
type Resolver struct {
	Reader client.Reader // uncached
	Plugin migrate.Plugin
}

// Resolved is a source with its objects. Snapshot or Claim is set, by its kind.
type Resolved struct {
	Source
	Snapshot *Snapshot
	Claim    *Claim
	// Granted is whether the source's namespace lets the claim's namespace use it.
	Granted bool
}

// Rules are the options that restrict what a claim may be filled from.
type Rules struct {
	// Driver is the name of the CSI driver, the only one whose sources can be used.
	Driver string
	// PreventModeConversion rejects to restore a snapshot to a volume of another
	// mode, unless an administrator has allowed it on the snapshot's content.
	PreventModeConversion bool
}

// Resolve reads the objects of a source for a claim of a namespace.
func (r *Resolver) Resolve(ctx context.Context, from Source, forNamespace string) (*Resolved, error) {
	resolved := &Resolved{Source: from}
	var err error
	if from.Kind == KindSnapshot {
		resolved.Snapshot, err = r.snapshot(ctx, from)
	} else {
		resolved.Claim, err = r.claim(ctx, from)
	}
	if err != nil || from.Namespace == forNamespace {
		return resolved, err
	}
	resolved.Granted, err = kube.IsReferenceGranted(ctx, r.Reader, schema.GroupKind{Kind: KindClaim}, forNamespace, from.referent())
	return resolved, err
}

func (r *Resolver) snapshot(ctx context.Context, from Source) (*Snapshot, error) {
	s := &Snapshot{}
	err := kube.GetIfExists(ctx, r.Reader, from.ObjectKey(), &s.Snapshot)
	if meta.IsNoMatchError(err) {
		return nil, errors.New("the snapshot API is not installed in this cluster; install it by: holdfast crds | kubectl apply --server-side -f -")
	}
	if err != nil || s.Snapshot == nil || s.contentName() == "" {
		return s, err
	}
	return s, kube.GetIfExists(ctx, r.Reader, types.NamespacedName{Name: s.contentName()}, &s.Content)
}

func (r *Resolver) claim(ctx context.Context, from Source) (*Claim, error) {
	c := &Claim{}
	if err := kube.GetIfExists(ctx, r.Reader, from.ObjectKey(), &c.Claim); err != nil || c.Claim == nil {
		return c, err
	}
	var volume *corev1.PersistentVolume
	err := kube.GetIfExists(ctx, r.Reader, types.NamespacedName{Name: c.Claim.Spec.VolumeName}, &volume)
	if volume != nil {
		c.Volume, err = r.Plugin.ToCSI(ctx, volume)
	}
	return c, err
}

// ContentSource checks that the claim may be filled from the source and returns
// the content source of its CreateVolume request. Its errors are for the claim's
// owner. Each of them can disappear by itself, so the claim is tried again.
func (r *Resolved) ContentSource(claim *corev1.PersistentVolumeClaim, rules Rules) (*csipb.VolumeContentSource, error) {
	if r.Namespace != claim.Namespace && !r.Granted {
		return nil, fmt.Errorf("no ReferenceGrant in namespace %s lets claims of namespace %s use %s", r.Namespace, claim.Namespace, r)
	}
	if r.Kind == KindSnapshot {
		handle, err := r.Snapshot.check(claim, rules)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r, err)
		}
		return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Snapshot{
			Snapshot: &csipb.VolumeContentSource_SnapshotSource{SnapshotId: handle},
		}}, nil
	}
	handle, err := r.Claim.check(claim, rules)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r, err)
	}
	return &csipb.VolumeContentSource{Type: &csipb.VolumeContentSource_Volume{
		Volume: &csipb.VolumeContentSource_VolumeSource{VolumeId: handle},
	}}, nil
}

// IsHeldFor reports whether the source is a snapshot that is being deleted and that
// snapshot-controller keeps until the claim has its volume.
func (r *Resolved) IsHeldFor(claim *corev1.PersistentVolumeClaim) bool {
	return r.Snapshot != nil && r.Snapshot.Snapshot != nil && r.Snapshot.isHeldFor(claim)
}

// volumeMode returns the volume mode of a claim or volume; it defaults to Filesystem.
func volumeMode(mode *corev1.PersistentVolumeMode) corev1.PersistentVolumeMode {
	return ptr.Deref(mode, corev1.PersistentVolumeFilesystem)
}
