package bind

import (
	"context"
	"fmt"
	"slices"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// patience is how long the driver's half has until the snapshot says that it is
// being made. Most drivers are quicker, and then one write says all.
const patience = time.Second

// create makes the content, after what it is made from is protected.
func (r *Reconciler) create(ctx context.Context, s *seen) (time.Duration, error) {
	content, err := r.content(s)
	if err != nil {
		return 0, err
	}
	if err := r.protect(ctx, s, string(content.Spec.DeletionPolicy), s.class.Name); err != nil {
		return 0, err
	}
	content.Spec.VolumeSnapshotRef.ResourceVersion = s.snapshot.ResourceVersion
	if err := r.protectClaim(ctx, s.claim); err != nil {
		return 0, err
	}
	err = r.client.Create(ctx, content)
	if apierrors.IsAlreadyExists(err) {
		return r.meet(ctx, s)
	}
	if err != nil {
		return 0, fmt.Errorf("making VolumeSnapshotContent %s: %w", content.Name, err)
	}
	s.content = content
	return patience, r.reconsider(ctx, s)
}

// meet goes on with a content of the snapshot's own that the cache does not show
// yet.
func (r *Reconciler) meet(ctx context.Context, s *seen) (time.Duration, error) {
	if err := kube.Read(ctx, r.live, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
		return 0, err
	}
	if s.content == nil {
		return r.options.RetryStart, nil // It has gone meanwhile.
	}
	next := decideDynamic(s)
	return r.do(ctx, s, next)
}

// content is what is made for a snapshot of a claim, with the finalizer that
// keeps it until the driver's half has done with it.
func (r *Reconciler) content(s *seen) (*snapshotv1.VolumeSnapshotContent, error) {
	content := &snapshotv1.VolumeSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: s.contentName(), Finalizers: []string{snapshot.Single.Finalizer}},
		Spec: snapshotv1.VolumeSnapshotContentSpec{
			VolumeSnapshotRef: corev1.ObjectReference{
				APIVersion: snapshotv1.SchemeGroupVersion.String(), Kind: "VolumeSnapshot",
				Namespace: s.snapshot.Namespace, Name: s.snapshot.Name, UID: s.snapshot.UID,
			},
			Source:                  snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &s.volume.Spec.CSI.VolumeHandle},
			VolumeSnapshotClassName: &s.class.Name,
			DeletionPolicy:          s.class.DeletionPolicy,
			Driver:                  s.class.Driver,
		},
	}
	if r.options.RecordMode {
		content.Spec.SourceVolumeMode = s.volume.Spec.VolumeMode
	}
	if r.options.Distributed && s.node != "" {
		content.Labels = map[string]string{snapshot.ManagedBy: snapshot.NodeLabel(s.node)}
	}
	secret, err := snapshot.Snapshotter.Resolve(s.class.Parameters, snapshot.Tokens(content.Name, content.Spec.VolumeSnapshotRef))
	if err != nil {
		return nil, snapshot.Problemf(reasonContentCreation, "VolumeSnapshotClass %s: %v", s.class.Name, err)
	}
	if _, err := snapshot.DriverParameters(s.class.Parameters); err != nil {
		return nil, snapshot.Problemf(reasonContentCreation, "VolumeSnapshotClass %s: %v", s.class.Name, err)
	}
	if secret != nil {
		content.Annotations = map[string]string{snapshot.Single.SecretName: secret.Name, snapshot.Single.SecretNamespace: secret.Namespace}
	}
	return content, nil
}

// protect puts our finalizers on the snapshot, and writes the class that was
// chosen for it, in one write, on the condition that it is still what was seen.
func (r *Reconciler) protect(ctx context.Context, s *seen, policy, class string) error {
	wanted := []string{snapshot.AsSourceFinalizer}
	if policy == string(snapshotv1.VolumeSnapshotContentDelete) {
		wanted = append(wanted, snapshot.BoundFinalizer)
	}
	all := slices.Clone(s.snapshot.Finalizers)
	for _, f := range wanted {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	choose := class != "" && s.snapshot.Spec.VolumeSnapshotClassName == nil
	if len(all) == len(s.snapshot.Finalizers) && !choose {
		return nil
	}
	change := map[string]any{"metadata": map[string]any{"resourceVersion": s.snapshot.ResourceVersion, "finalizers": all}}
	if choose {
		change["spec"] = map[string]any{"volumeSnapshotClassName": class}
	}
	return kube.Written(kube.Merge(ctx, r.client, s.snapshot, change), "protecting the snapshot")
}

// protectClaim keeps a claim until it is cut. That the cache shows the finalizer
// is not enough: it may just have been taken off for another snapshot.
func (r *Reconciler) protectClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	release, err := r.claims.Take(ctx, string(claim.UID))
	if err != nil {
		return fmt.Errorf("waiting for claim %s: %w", claim.Name, err)
	}
	defer release()
	if slices.Contains(claim.Finalizers, snapshot.ClaimFinalizer) {
		var now *corev1.PersistentVolumeClaim
		if err := kube.Read(ctx, r.live, client.ObjectKeyFromObject(claim), &now); err != nil {
			return err
		}
		if now == nil || now.UID != claim.UID {
			return kube.Superseded("claim %s is another one now", claim.Name)
		}
		claim = now
	}
	return kube.Written(r.mark(ctx, claim, true), "protecting claim "+claim.Name)
}
