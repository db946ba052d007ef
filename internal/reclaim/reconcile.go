package reclaim

import (
	"context"
	"errors"
	"fmt"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
	"github.com/holdfast-io/holdfast/internal/secretref"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// Options say which volumes are ours and how they are worked on.
type Options struct {
	// Driver is the CSI driver's own name.
	Driver string
	// Provisioner is the name that classes carry; by default the driver's.
	Provisioner string
	// Segment is where the driver beside this process has its volumes; nil for
	// a driver that has them everywhere.
	Segment topology.Segment
	// Node is the name of the node that this process serves, if it has a Segment.
	Node string
	// Plugin is what the driver has taken the place of, if it has.
	Plugin migrate.Plugin
	// Workers is how many volumes are worked on at a time.
	Workers int
	// Metrics count what is done; nil for nobody.
	Metrics *Metrics
	// RetryStart and RetryMax bound the pause before the next try.
	RetryStart, RetryMax time.Duration
}

// Reconciler deletes volumes that nobody wants any more.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // past the cache
	driver    *csi.Driver
	events    *kube.Events
	options   *Options
}

// Reconcile takes one volume a step closer to where its reclaim policy leads.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	s, err := r.observe(ctx, r.client, request.NamespacedName)
	if err != nil || s.volume == nil {
		return reconcile.Result{}, err
	}
	next := decide(s, r.options)
	if next == locate || next == reportOtherNode || next == reportOtherProvisioner {
		again, err := r.locateOrReport(ctx, s.volume, next)
		return reconcile.Result{RequeueAfter: again}, err
	}
	return reconcile.Result{}, r.execute(ctx, s, next)
}

// observe reads the volume from the given source and its attachments from the
// cache. A volume that is gone is nil.
func (r *Reconciler) observe(ctx context.Context, from client.Reader, key types.NamespacedName) (state, error) {
	volume := &corev1.PersistentVolume{}
	if err := from.Get(ctx, key, volume); err != nil {
		if apierrors.IsNotFound(err) {
			return state{}, nil
		}
		return state{}, fmt.Errorf("reading the volume: %w", err)
	}
	s := state{volume: volume}
	var err error
	if s.boundToClaim, err = r.isClaimBound(ctx, volume); err != nil {
		return state{}, err
	}
	if !r.usesAttachments() || volume.Status.Phase != corev1.VolumeReleased && volume.DeletionTimestamp == nil {
		return s, nil
	}
	attachments := &storagev1.VolumeAttachmentList{}
	if err := r.client.List(ctx, attachments, client.MatchingFields{attachmentsByVolume: volume.Name}); err != nil {
		return state{}, fmt.Errorf("reading the volume's attachments: %w", err)
	}
	s.attached = len(attachments.Items) > 0
	return s, nil
}

// isClaimBound tells whether a claim is bound to a volume that is being deleted and whose
// phase does not tell: the PV controller may not have come to it yet. That is rare,
// so the API server itself is asked.
func (r *Reconciler) isClaimBound(ctx context.Context, volume *corev1.PersistentVolume) (bool, error) {
	ref := volume.Spec.ClaimRef
	phase := volume.Status.Phase
	if volume.DeletionTimestamp == nil || ref == nil || phase == corev1.VolumeBound || phase == corev1.VolumeReleased {
		return false, nil
	}
	claim := &corev1.PersistentVolumeClaim{}
	err := r.apiReader.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, claim)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the volume's claim: %w", err)
	}
	return claim.Spec.VolumeName == volume.Name && (ref.UID == "" || ref.UID == claim.UID), nil
}

// usesAttachments tells whether the driver's volumes have VolumeAttachments.
func (r *Reconciler) usesAttachments() bool {
	return r.driver.Info().Has(csipb.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
}

func (r *Reconciler) execute(ctx context.Context, s state, next action) error {
	switch next {
	case waitForDetach:
		r.events.Normal(s.volume, kube.ReasonWaitingForDetach, "The volume is still attached; it is deleted when it is not")
	case addFinalizer:
		return ignoreConflict(kube.AddFinalizer(ctx, r.client, s.volume, kube.VolumeFinalizer))
	case removeFinalizer:
		return ignoreConflict(kube.RemoveFinalizer(ctx, r.client, s.volume, kube.VolumeFinalizer))
	case deleteVolume:
		if err := r.deleteVolume(ctx, s.volume); err != nil {
			r.options.Metrics.failure(s.volume)
			r.events.Warning(s.volume, kube.ReasonVolumeFailedDelete, err.Error())
			return err
		}
	case none, locate, reportOtherNode, reportOtherProvisioner:
	}
	return nil
}

// ignoreConflict drops an error that says that the object has changed since it
// was seen: the change wakes us up to decide again.
func ignoreConflict(err error) error {
	if kube.IsConflictResponse(err) {
		return nil
	}
	return err
}

// deleteVolume deletes the volume at the driver, then the object. The call may wait for
// long before it is sent: the decision is made once more then, from the API server
// itself, for somebody may have changed the reclaim policy to save the data.
func (r *Reconciler) deleteVolume(ctx context.Context, observed *corev1.PersistentVolume) error {
	start := time.Now()
	handle, err := r.volumeHandle(ctx, observed)
	if err != nil {
		return err
	}
	request := &csipb.DeleteVolumeRequest{VolumeId: handle}
	var current *corev1.PersistentVolume
	err = r.driver.WithPrecondition(func(ctx context.Context) (err error) {
		if current, err = r.confirmDelete(ctx, observed); err != nil {
			return err
		}
		request.Secrets, err = r.deletionSecrets(ctx, current)
		return err
	}).DeleteVolume(ctx, request)
	if errors.Is(err, csi.ErrPreconditionFailed) {
		return nil // What has changed wakes us up.
	}
	if err != nil {
		return fmt.Errorf("deleting volume %s: %w", handle, err)
	}
	if err := r.deleteObject(ctx, current); err != nil {
		return err
	}
	r.options.Metrics.success(current, start)
	return nil
}

// confirmDelete reads a volume from the API server and returns it if it is the one
// that was seen, and still is to be destroyed; else [csi.ErrPreconditionFailed].
func (r *Reconciler) confirmDelete(ctx context.Context, observed *corev1.PersistentVolume) (*corev1.PersistentVolume, error) {
	s, err := r.observe(ctx, r.apiReader, client.ObjectKeyFromObject(observed))
	if err != nil {
		return nil, err
	}
	if s.volume == nil || s.volume.UID != observed.UID || decide(s, r.options) != deleteVolume {
		return nil, csi.ErrPreconditionFailed
	}
	return s.volume, nil
}

// volumeHandle is what the driver calls a volume. It never changes.
func (r *Reconciler) volumeHandle(ctx context.Context, volume *corev1.PersistentVolume) (string, error) {
	translated, err := r.options.Plugin.ToCSI(ctx, volume)
	if err != nil {
		return "", err
	}
	return translated.Spec.CSI.VolumeHandle, nil
}

// deleteObject lets the object go. What others change about it meanwhile no longer
// matters: the volume is gone.
func (r *Reconciler) deleteObject(ctx context.Context, volume *corev1.PersistentVolume) error {
	err := retry.OnError(retry.DefaultBackoff, kube.IsConflictResponse, func() error {
		err := kube.RemoveFinalizer(ctx, r.client, volume, kube.VolumeFinalizer)
		if kube.IsConflictResponse(err) {
			return errors.Join(err, client.IgnoreNotFound(r.apiReader.Get(ctx, client.ObjectKeyFromObject(volume), volume)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("letting PersistentVolume %s go: %w", volume.Name, err)
	}
	if volume.DeletionTimestamp != nil {
		return nil
	}
	same := client.Preconditions{UID: &volume.UID}
	if err := r.client.Delete(ctx, volume, same); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting PersistentVolume %s: %w", volume.Name, err)
	}
	return nil
}

// deletionSecrets reads the secret that the volume was made with. If it is gone the
// driver is asked without: it may well not need it, and the volume would be
// stuck for good otherwise.
func (r *Reconciler) deletionSecrets(ctx context.Context, volume *corev1.PersistentVolume) (map[string]string, error) {
	ref, err := r.deletionSecretRef(ctx, volume)
	if err != nil {
		return nil, err
	}
	values, err := kube.SecretData(ctx, r.apiReader, ref)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return values, err
}

// deletionSecretRef is the secret that a volume's object names. Of one that says
// nothing, not even that there is none, the class is asked: people write such
// objects, and old provisioners did.
func (r *Reconciler) deletionSecretRef(ctx context.Context, volume *corev1.PersistentVolume) (*corev1.SecretReference, error) {
	name, annotated := volume.Annotations[kube.AnnDeletionSecretName]
	namespace := volume.Annotations[kube.AnnDeletionSecretNamespace]
	if annotated && (name == "" || namespace == "") {
		return nil, nil
	}
	if annotated {
		return &corev1.SecretReference{Name: name, Namespace: namespace}, nil
	}
	class := &storagev1.StorageClass{}
	err := r.client.Get(ctx, types.NamespacedName{Name: volume.Spec.StorageClassName}, class)
	if err != nil || volume.Spec.ClaimRef == nil {
		return nil, client.IgnoreNotFound(err)
	}
	ref := volume.Spec.ClaimRef
	refs, err := secretref.ResolveAll(class.Parameters, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: ref.Name, Namespace: ref.Namespace},
	}, volume.Name)
	if err != nil {
		return nil, fmt.Errorf("finding the secret in StorageClass %s, because the volume has no annotations %s and %s: %w",
			class.Name, kube.AnnDeletionSecretName, kube.AnnDeletionSecretNamespace, err)
	}
	return refs[secretref.Provision], nil
}
