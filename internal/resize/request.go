package resize

import (
	"context"
	"maps"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/kube"
)

// expandRequest builds the request, including secrets. If only the node expands
// volumes it needs neither, because the driver's controller is not called.
func (r *Reconciler) expandRequest(ctx context.Context, s *state, op operation, size int64) (*csipb.ControllerExpandVolumeRequest, error) {
	if op.nodeOnly {
		return &csipb.ControllerExpandVolumeRequest{CapacityRange: &csipb.CapacityRange{RequiredBytes: size}}, nil
	}
	spec, err := r.options.csiSpec(ctx, s.volume)
	if err != nil {
		return nil, err
	}
	capability, err := csi.Capability(spec, s.info.Has(csipb.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER), "")
	if err != nil {
		return nil, err
	}
	source := spec.CSI
	secrets, err := kube.SecretData(ctx, r.apiReader, source.ControllerExpandSecretRef)
	if err != nil {
		return nil, err
	}
	return &csipb.ControllerExpandVolumeRequest{
		VolumeId:         source.VolumeHandle,
		CapacityRange:    &csipb.CapacityRange{RequiredBytes: size},
		VolumeCapability: capability,
		Secrets:          secrets,
	}, nil
}

// modifyRequest builds the request, including secrets.
func (r *Reconciler) modifyRequest(ctx context.Context, s *state, parameters map[string]string) (*csipb.ControllerModifyVolumeRequest, error) {
	spec, err := r.options.csiSpec(ctx, s.volume)
	if err != nil {
		return nil, err
	}
	secrets, err := kube.SecretData(ctx, r.apiReader, modifySecret(s.volume, spec))
	if err != nil {
		return nil, err
	}
	if r.options.ExtraModifyMetadata {
		parameters = maps.Clone(parameters)
		if parameters == nil {
			parameters = map[string]string{}
		}
		parameters[kube.ParameterClaimName] = s.claim.Name
		parameters[kube.ParameterClaimNamespace] = s.claim.Namespace
		parameters[kube.ParameterVolumeName] = s.volume.Name
	}
	return &csipb.ControllerModifyVolumeRequest{
		VolumeId:          spec.CSI.VolumeHandle,
		MutableParameters: parameters,
		Secrets:           secrets,
	}, nil
}

// modifySecret returns the secret of the volume's class for modifications, or
// else that for expansions, or nil.
func modifySecret(volume *corev1.PersistentVolume, spec *corev1.PersistentVolumeSpec) *corev1.SecretReference {
	name, namespace := volume.Annotations[kube.AnnModifySecretName], volume.Annotations[kube.AnnModifySecretNamespace]
	if name != "" && namespace != "" {
		return &corev1.SecretReference{Name: name, Namespace: namespace}
	}
	return spec.CSI.ControllerExpandSecretRef
}

// csiSpec returns the volume's spec in CSI form, for calls to the driver only.
// API objects keep their in-tree form.
func (o *Options) csiSpec(ctx context.Context, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeSpec, error) {
	translated, err := o.Plugin.ToCSI(ctx, volume)
	if err != nil {
		return nil, err
	}
	return &translated.Spec, nil
}
