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

// Options configure the controller.
type Options struct {
	// Driver is the CSI driver's name.
	Driver string
	// Provisioner is the provisioner's name in StorageClasses; by default it is
	// the driver's.
	Provisioner string
	// Segment is the topology of the node if the driver's volumes are local to
	// it, and nil for a driver whose volumes are accessible everywhere.
	Segment topology.Segment
	// Node is the name of the node that this process serves, if it has a
	// Segment.
	Node string
	// Plugin is the in-tree plugin that the driver replaces, if there is one.
	Plugin migrate.Plugin
	// Workers is the number of volumes that are reconciled at the same time.
	Workers int
	// Metrics count deletions; nil disables them.
	Metrics *Metrics
	// RetryStart and RetryMax are the shortest and the longest delay before a
	// retry.
	RetryStart, RetryMax time.Duration
}

// Reconciler deletes volumes that no claim uses any more.
type Reconciler struct {
	client    client.Client
	apiReader client.Reader // uncached
	driver    *csi.Driver
	events    *kube.Events
	options   *Options

	watchesAttachments bool
}

// Reconcile does the next step that a volume's reclaim policy requires.
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
	var again time.Duration
	if next == waitForDetach && !r.watchesAttachments {
		again = min(attachmentPollInterval, r.options.RetryMax)
	}
	return reconcile.Result{RequeueAfter: again}, r.execute(ctx, s, next)
}

// observe reads the volume from the given source and its VolumeAttachments from
// the cache. The volume is nil if it does not exist.
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
	if volume.Status.Phase != corev1.VolumeReleased && volume.DeletionTimestamp == nil {
		return s, nil
	}
	s.attached, err = r.isAttached(ctx, volume)
	return s, err
}

// isClaimBound reports whether a claim is bound to a volume that is being
// deleted and whose phase does not show that: the PV controller may not have
// updated it yet. This is rare, so the claim is read from the API server.
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

func (r *Reconciler) execute(ctx context.Context, s state, next action) error {
	switch next {
	case waitForDetach:
		r.events.Normal(s.volume, kube.ReasonWaitingForDetach, "The volume is still attached; it is deleted after it is detached")
	case addFinalizer:
		return r.reportWrite(s.volume, "adding the finalizer to", kube.AddFinalizer(ctx, r.client, s.volume, kube.VolumeFinalizer))
	case removeFinalizer:
		return r.reportWrite(s.volume, "removing the finalizer from", kube.RemoveFinalizer(ctx, r.client, s.volume, kube.VolumeFinalizer))
	case deleteVolume:
		if err := r.deleteVolume(ctx, s.volume); err != nil {
			r.options.Metrics.failure(s.volume)
			r.events.Warning(s.volume, kube.ReasonVolumeFailedDelete, kube.Message(err))
			return err
		}
	case none, locate, reportOtherNode, reportOtherProvisioner:
	}
	return nil
}

// reportWrite drops an error that means that the volume has changed since it was
// observed: the change enqueues it again. If the API server denies the write, an
// event says so.
func (r *Reconciler) reportWrite(volume *corev1.PersistentVolume, verb string, err error) error {
	if kube.IsStale(err) || err == nil {
		return nil
	}
	err = fmt.Errorf("%s PersistentVolume %s: %w", verb, volume.Name, err)
	r.events.WarnIfDenied(eventTarget(volume), kube.ReasonDenied, err)
	return err
}

// eventTarget returns the object whose events users read: the claim of a bound
// volume, else the volume.
func eventTarget(volume *corev1.PersistentVolume) client.Object {
	claim := volume.Spec.ClaimRef
	if claim == nil || volume.Status.Phase != corev1.VolumeBound {
		return volume
	}
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}}
}

// deleteVolume deletes the volume at the driver, then the object. The call may
// wait for a long time before it is sent. Therefore the controller decides
// again right before the call, from the API server's state: a user may have
// changed the reclaim policy to keep the data.
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
		return nil // The change enqueues the volume again.
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

// confirmDelete reads a volume from the API server. It returns the volume if it
// is the observed one and is still to be deleted, and
// [csi.ErrPreconditionFailed] otherwise.
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

// volumeHandle returns the driver's handle of a volume. It never changes.
func (r *Reconciler) volumeHandle(ctx context.Context, volume *corev1.PersistentVolume) (string, error) {
	translated, err := r.options.Plugin.ToCSI(ctx, volume)
	if err != nil {
		return "", err
	}
	return translated.Spec.CSI.VolumeHandle, nil
}

// deleteObject removes our finalizer and deletes the object. Concurrent changes
// of the object do not matter any more, because the volume is deleted.
func (r *Reconciler) deleteObject(ctx context.Context, volume *corev1.PersistentVolume) error {
	err := retry.OnError(retry.DefaultBackoff, kube.IsStale, func() error {
		err := kube.RemoveFinalizer(ctx, r.client, volume, kube.VolumeFinalizer)
		if kube.IsStale(err) {
			return errors.Join(err, client.IgnoreNotFound(r.apiReader.Get(ctx, client.ObjectKeyFromObject(volume), volume)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("removing the finalizer from PersistentVolume %s: %w", volume.Name, err)
	}
	if volume.DeletionTimestamp != nil {
		return nil
	}
	same := client.Preconditions{UID: &volume.UID}
	if err := r.client.Delete(ctx, volume, same); kube.IgnoreGone(err) != nil {
		return fmt.Errorf("deleting PersistentVolume %s: %w", volume.Name, err)
	}
	return nil
}

// deletionSecrets reads the secret that the volume was created with. If it is
// gone, the driver is called without it: the driver may not need it, and
// otherwise the volume could never be deleted.
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

// deletionSecretRef returns the secret that a volume's annotations name. A
// volume without these annotations, written by hand or by an old provisioner,
// uses its class.
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
	secret, err := secretref.Provision.ResolveForGone(class.Parameters, ref.Namespace, ref.Name, volume.Name)
	if err != nil {
		return nil, fmt.Errorf("finding the secret in StorageClass %s, because the volume does not have annotations %s and %s: %w; add them to PersistentVolume %s",
			class.Name, kube.AnnDeletionSecretName, kube.AnnDeletionSecretNamespace, err, volume.Name)
	}
	return secret, nil
}
