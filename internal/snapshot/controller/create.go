package controller

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/snapshot"
)

// sidecarGracePeriod is how long the csi-snapshotter has before the snapshot's status
// says that it is being created. Most drivers are faster, and then one write of the
// status is enough.
const sidecarGracePeriod = time.Second

// createContent adds finalizers to the snapshot and to its claims, then creates the
// content.
func (r *Reconciler) createContent(ctx context.Context, s *Observed) (time.Duration, error) {
	draft, err := r.draftContent(s)
	if err != nil {
		return 0, err
	}
	if err := r.addFinalizers(ctx, s, s.Class.Retain(), s.Class.Name); err != nil {
		return 0, err
	}
	draft.Ref.ResourceVersion = s.Snapshot.Object.GetResourceVersion()
	unlock, err := r.kind.AddClaimFinalizers(ctx, s.Sources)
	if err != nil {
		return 0, err
	}
	content := r.kind.NewContent(draft)
	err = r.client.Create(ctx, content)
	unlock()
	if apierrors.IsAlreadyExists(err) {
		return r.useExistingContent(ctx, s)
	}
	if err != nil {
		return 0, fmt.Errorf("creating %s %s: %w", r.Content, content.GetName(), err)
	}
	return sidecarGracePeriod, r.deleteContentIfOrphaned(ctx, s)
}

// useExistingContent continues with a content that the cache does not show yet.
func (r *Reconciler) useExistingContent(ctx context.Context, s *Observed) (time.Duration, error) {
	if err := r.readContent(ctx, r.apiReader, s); err != nil {
		return 0, err
	}
	if s.Content == nil {
		return kube.RetryAfterConflict(r.options.RetryStart), nil // It was deleted meanwhile.
	}
	return r.execute(ctx, s, r.decideDynamic(s))
}

// draftContent is the content to create for a snapshot. Its finalizer keeps it until the
// csi-snapshotter has deleted the snapshot at the driver.
func (r *Reconciler) draftContent(s *Observed) (*ContentDraft, error) {
	o := s.Snapshot.Object
	d := &ContentDraft{
		Meta: metav1.ObjectMeta{Name: s.Snapshot.ContentName, Finalizers: []string{r.Keys.Finalizer}},
		Ref: corev1.ObjectReference{
			APIVersion: r.APIVersion, Kind: r.Snapshot, Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(),
		},
		Class: s.Class, Sources: s.Sources,
	}
	if len(s.Nodes) > 0 {
		d.Meta.Labels = map[string]string{snapshot.ManagedBy: snapshot.NodeLabel(s.Nodes[0])}
	}
	secret, err := r.kind.SnapshotterSecret(s.Class, d.Meta.Name, d.Ref)
	if err != nil {
		return nil, snapshot.Problemf(r.Reasons.ContentCreation, "%s %s: %v", r.Class, s.Class.Name, err)
	}
	if _, err := snapshot.DriverParameters(s.Class.Parameters); err != nil {
		return nil, snapshot.Problemf(r.Reasons.ContentCreation, "%s %s: %v", r.Class, s.Class.Name, err)
	}
	if secret != nil {
		d.Meta.Annotations = map[string]string{r.Keys.SecretName: secret.Name, r.Keys.SecretNamespace: secret.Namespace}
	}
	return d, nil
}

// bindContent writes the UID of the snapshot, and our finalizer, to a pre-provisioned
// content. It is one write: the UID in a reference cannot be changed later.
func (r *Reconciler) bindContent(ctx context.Context, s *Observed) error {
	if err := r.addFinalizers(ctx, s, s.Content.Retain, ""); err != nil {
		return err
	}
	content := s.Content.Object
	spec := map[string]any{r.RefField: map[string]any{"uid": s.Snapshot.Object.GetUID()}}
	if s.Snapshot.Class != "" && (s.Content.Class == "" || !r.ClassImmutable) {
		spec[r.ClassField] = s.Snapshot.Class
	}
	err := kube.WrapWriteError(kube.MergePatch(ctx, r.client, content, map[string]any{
		"metadata": map[string]any{"resourceVersion": content.GetResourceVersion(), "finalizers": r.Keys.WithFinalizer(content)},
		"spec":     spec,
	}), fmt.Sprintf("binding %s %s", r.Content, content.GetName()))
	if err != nil && !kube.IsConflict(err) && !kube.IsDenied(err) {
		r.events.Warning(s.Snapshot.Object, r.Reasons.BindFailed, err.Error())
	}
	if err != nil {
		return err
	}
	s.Content = r.kind.ReadContent(content)
	return r.deleteContentIfOrphaned(ctx, s)
}

// addFinalizers adds our finalizers to the snapshot, and writes the class that was chosen
// for it. It is one write, which fails if the snapshot has changed since it was observed.
func (r *Reconciler) addFinalizers(ctx context.Context, s *Observed, retain bool, class string) error {
	o := s.Snapshot.Object
	wanted := r.Finalizers
	if !retain {
		wanted = slices.Concat(r.Finalizers, r.DeletePolicyFinalizers)
	}
	all := slices.Clone(o.GetFinalizers())
	for _, f := range wanted {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	choose := class != "" && s.Snapshot.Class == ""
	if len(all) == len(o.GetFinalizers()) && !choose {
		return nil
	}
	change := map[string]any{"metadata": map[string]any{"resourceVersion": o.GetResourceVersion(), "finalizers": all}}
	if choose {
		change["spec"] = map[string]any{r.ClassField: class}
	}
	return kube.WrapWriteError(kube.MergePatch(ctx, r.client, o, change), "adding finalizers to the "+r.Noun)
}
