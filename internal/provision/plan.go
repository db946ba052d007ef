package provision

import (
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/provision/pending"
	"github.com/holdfast-io/holdfast/internal/provision/placement"
	"github.com/holdfast-io/holdfast/internal/provision/source"
	"github.com/holdfast-io/holdfast/internal/secretref"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// plan returns the operation to create the claim's volume. It does no I/O. Its errors are
// for the owner of the claim or of the class.
func plan(s state, o *Options) (*pending.Operation, error) {
	fs, err := fsType(s.class.Parameters, o.DefaultFSType)
	if err != nil {
		return nil, err
	}
	secrets, err := secretref.ResolveAll(s.class.Parameters, s.claim, o.volumeName(s.claim))
	if err != nil {
		return nil, err
	}
	request, err := o.request(s, fs)
	if err != nil {
		return nil, err
	}
	op := &pending.Operation{Request: request, Secret: secrets[secretref.Provision], Volume: o.volume(s, fs, secrets)}
	if s.source != nil {
		op.Source, op.SourceHeldByClaim = &s.source.Source, s.source.IsHeldFor(s.claim)
		request.VolumeContentSource, err = s.source.ContentSource(s.claim, source.Rules{Driver: o.Driver, PreventModeConversion: o.PreventModeConversion})
	}
	return op, err
}

// request returns the CreateVolume request without its content source.
func (o *Options) request(s state, fs string) (*csipb.CreateVolumeRequest, error) {
	parameters, err := driverParameters(s.class.Parameters)
	if err != nil {
		return nil, err
	}
	name := o.volumeName(s.claim)
	if o.ExtraCreateMetadata {
		parameters[kube.ParameterClaimName] = s.claim.Name
		parameters[kube.ParameterClaimNamespace] = s.claim.Namespace
		parameters[kube.ParameterVolumeName] = name
	}
	capabilities, err := capabilities(s, fs)
	if err != nil {
		return nil, err
	}
	size, err := kube.Bytes(*s.claim.Spec.Resources.Requests.Storage())
	if err != nil {
		return nil, fmt.Errorf("size of the claim: %w", err)
	}
	r := &csipb.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csipb.CapacityRange{RequiredBytes: size},
		VolumeCapabilities: capabilities,
		Parameters:         parameters,
	}
	if s.attributes != nil {
		r.MutableParameters = s.attributes.Parameters
	}
	if s.hasTopology() {
		r.AccessibilityRequirements, err = placement.Requirement(s.placement(o))
	}
	return r, err
}

// capabilities returns one volume capability for each access mode of the claim.
func capabilities(s state, fs string) ([]*csipb.VolumeCapability, error) {
	modes, err := csi.AccessModes(s.claim.Spec.AccessModes, s.info.Has(csipb.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER))
	if err != nil {
		return nil, err
	}
	var all []*csipb.VolumeCapability
	for _, mode := range modes {
		c := &csipb.VolumeCapability{AccessMode: &csipb.VolumeCapability_AccessMode{Mode: mode}}
		if block(s.claim) {
			c.AccessType = &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}}
		} else {
			c.AccessType = &csipb.VolumeCapability_Mount{Mount: &csipb.VolumeCapability_MountVolume{FsType: fs, MountFlags: s.class.MountOptions}}
		}
		all = append(all, c)
	}
	return all, nil
}

func block(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// volume returns the PersistentVolume without what the driver's response adds.
func (o *Options) volume(s state, fs string, secrets map[secretref.Use]*corev1.SecretReference) *corev1.PersistentVolume {
	annotations := map[string]string{
		kube.AnnProvisionedBy:           s.class.Provisioner,
		kube.AnnDeletionSecretName:      "",
		kube.AnnDeletionSecretNamespace: "",
	}
	if ref := secrets[secretref.Provision]; ref != nil {
		annotations[kube.AnnDeletionSecretName], annotations[kube.AnnDeletionSecretNamespace] = ref.Name, ref.Namespace
	}
	if ref := secrets[secretref.ControllerModify]; ref != nil {
		annotations[kube.AnnModifySecretName], annotations[kube.AnnModifySecretNamespace] = ref.Name, ref.Namespace
	}
	if block(s.claim) {
		fs = ""
	}
	// The reclaim controller removes the finalizer of retained volumes, so they get none.
	var finalizers []string
	if reclaimPolicy(s.class) == corev1.PersistentVolumeReclaimDelete {
		finalizers = []string{kube.VolumeFinalizer}
	}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: o.volumeName(s.claim), Annotations: annotations, Finalizers: finalizers,
		},
		Spec: corev1.PersistentVolumeSpec{
			AccessModes:                   s.claim.Spec.AccessModes,
			MountOptions:                  s.class.MountOptions,
			ClaimRef:                      reference(s.claim),
			StorageClassName:              s.class.Name,
			PersistentVolumeReclaimPolicy: reclaimPolicy(s.class),
			VolumeMode:                    s.claim.Spec.VolumeMode,
			VolumeAttributesClassName:     s.attributesName(),
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
				Driver:                     o.Driver,
				FSType:                     fs,
				ReadOnly:                   o.ReadOnlyPublish && readOnly(s.claim),
				VolumeAttributes:           map[string]string{kube.AttributeIdentity: o.Identity},
				ControllerPublishSecretRef: secrets[secretref.ControllerPublish],
				NodeStageSecretRef:         secrets[secretref.NodeStage],
				NodePublishSecretRef:       secrets[secretref.NodePublish],
				ControllerExpandSecretRef:  secrets[secretref.ControllerExpand],
				NodeExpandSecretRef:        secrets[secretref.NodeExpand],
			}},
		},
	}
}

// attributesName returns the name of the claim's VolumeAttributesClass, nil for none.
func (s *state) attributesName() *string {
	if s.attributes == nil {
		return nil
	}
	return &s.attributes.Name
}

// reclaimPolicy returns the policy of the class; it defaults to Delete.
func reclaimPolicy(class *storagev1.StorageClass) corev1.PersistentVolumeReclaimPolicy {
	if class.ReclaimPolicy == nil {
		return corev1.PersistentVolumeReclaimDelete
	}
	return *class.ReclaimPolicy
}

func readOnly(claim *corev1.PersistentVolumeClaim) bool {
	return len(claim.Spec.AccessModes) == 1 && claim.Spec.AccessModes[0] == corev1.ReadOnlyMany
}

func reference(claim *corev1.PersistentVolumeClaim) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		APIVersion: "v1", Kind: "PersistentVolumeClaim",
		Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID, ResourceVersion: claim.ResourceVersion,
	}
}

// complete returns the PersistentVolume of an operation with what the response adds.
func complete(op *pending.Operation, created *csipb.Volume) *corev1.PersistentVolume {
	volume := op.Volume.DeepCopy()
	volume.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(created.GetCapacityBytes(), resource.BinarySI)}
	volume.Spec.NodeAffinity = topology.NodeAffinity(created.GetAccessibleTopology())
	csiSource := volume.Spec.CSI
	csiSource.VolumeHandle = created.GetVolumeId()
	if csiSource.VolumeAttributes == nil {
		csiSource.VolumeAttributes = map[string]string{}
	}
	for key, value := range created.GetVolumeContext() {
		if _, exists := csiSource.VolumeAttributes[key]; !exists {
			csiSource.VolumeAttributes[key] = value
		}
	}
	return volume
}
