package bind

import (
	"context"
	"fmt"
	"slices"
	"time"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// patience is how long the driver's half has until the group says that it is
// being made. Most drivers are quicker, and then one write says all.
const patience = time.Second

// create makes the content, after the group is protected.
func (r *Reconciler) create(ctx context.Context, s *seen) (time.Duration, error) {
	content, err := r.content(s)
	if err != nil {
		return 0, err
	}
	if err := r.protect(ctx, s, s.class.Name); err != nil {
		return 0, err
	}
	content.Spec.VolumeGroupSnapshotRef.ResourceVersion = s.group.ResourceVersion
	err = r.client.Create(ctx, content)
	if apierrors.IsAlreadyExists(err) {
		return r.meet(ctx, s)
	}
	if err != nil {
		return 0, fmt.Errorf("making VolumeGroupSnapshotContent %s: %w", content.Name, err)
	}
	return patience, nil
}

// meet goes on with a content of the group's own that the cache does not show
// yet.
func (r *Reconciler) meet(ctx context.Context, s *seen) (time.Duration, error) {
	if err := kube.Read(ctx, r.live, client.ObjectKey{Name: s.contentName()}, &s.content); err != nil {
		return 0, err
	}
	if s.content == nil {
		return r.options.RetryStart, nil // It has gone meanwhile.
	}
	return r.do(ctx, s, decideDynamic(s))
}

// content is what is made for a group of claims, with the finalizer that keeps
// it until the driver's half has done with it.
func (r *Reconciler) content(s *seen) (*groupv1.VolumeGroupSnapshotContent, error) {
	content := &groupv1.VolumeGroupSnapshotContent{
		ObjectMeta: metav1.ObjectMeta{Name: s.contentName(), Finalizers: []string{snapshot.Group.Finalizer}},
		Spec: groupv1.VolumeGroupSnapshotContentSpec{
			VolumeGroupSnapshotRef: corev1.ObjectReference{
				APIVersion: r.kind.GroupVersion().String(), Kind: r.kind.Kind,
				Namespace: s.group.Namespace, Name: s.group.Name, UID: s.group.UID,
			},
			VolumeGroupSnapshotClassName: &s.class.Name,
			DeletionPolicy:               s.class.DeletionPolicy,
			Driver:                       s.class.Driver,
		},
	}
	for _, source := range s.sources {
		content.Spec.Source.VolumeHandles = append(content.Spec.Source.VolumeHandles, source.Volume.Spec.CSI.VolumeHandle)
	}
	if r.options.Distributed {
		content.Labels = map[string]string{snapshot.ManagedBy: snapshot.NodeLabel(s.nodes[0])}
	}
	secret, err := snapshot.GroupSnapshotter.Resolve(s.class.Parameters, snapshot.GroupTokens(content.Name, content.Spec.VolumeGroupSnapshotRef))
	if err != nil {
		return nil, snapshot.Problemf(reasonContentCreation, "VolumeGroupSnapshotClass %s: %v", s.class.Name, err)
	}
	if _, err := snapshot.DriverParameters(s.class.Parameters); err != nil {
		return nil, snapshot.Problemf(reasonContentCreation, "VolumeGroupSnapshotClass %s: %v", s.class.Name, err)
	}
	if secret != nil {
		content.Annotations = map[string]string{snapshot.Group.SecretName: secret.Name, snapshot.Group.SecretNamespace: secret.Namespace}
	}
	return content, nil
}

// protect puts our finalizer on the group, and writes the class that was chosen
// for it, in one write, on the condition that it is still what was seen.
func (r *Reconciler) protect(ctx context.Context, s *seen, class string) error {
	choose := class != "" && s.group.Spec.VolumeGroupSnapshotClassName == nil
	if s.held() && !choose {
		return nil
	}
	finalizers := s.group.Finalizers
	if !s.held() {
		finalizers = append(slices.Clone(finalizers), snapshot.GroupBoundFinalizer)
	}
	change := map[string]any{"metadata": map[string]any{"resourceVersion": s.group.ResourceVersion, "finalizers": finalizers}}
	if choose {
		change["spec"] = map[string]any{"volumeGroupSnapshotClassName": class}
	}
	return kube.Written(kube.Merge(ctx, r.client, s.group, change), "protecting the group snapshot")
}

// adopt gives a content that was there before the UID of its group, and what
// keeps it, in one write: whose it is can only be said once, and so can its
// class.
func (r *Reconciler) adopt(ctx context.Context, s *seen) error {
	if err := r.protect(ctx, s, ""); err != nil {
		return err
	}
	spec := map[string]any{"volumeGroupSnapshotRef": map[string]any{"uid": s.group.UID}}
	if class := s.group.Spec.VolumeGroupSnapshotClassName; class != nil && s.content.Spec.VolumeGroupSnapshotClassName == nil {
		spec["volumeGroupSnapshotClassName"] = *class
	}
	err := kube.Written(kube.Merge(ctx, r.client, s.content, map[string]any{
		"metadata": map[string]any{"resourceVersion": s.content.ResourceVersion, "finalizers": snapshot.Group.Kept(s.content)},
		"spec":     spec,
	}), "binding VolumeGroupSnapshotContent "+s.content.Name)
	if err != nil && !kube.IsSuperseded(err) {
		r.events.Warning(s.group, reasonBindFailed, err.Error())
	}
	return err
}
