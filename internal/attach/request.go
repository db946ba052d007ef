package attach

import (
	csipb "github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// publishRequest builds the request to publish a volume, without the secrets.
func publishRequest(s state, info csi.Info, o *Options) (*csipb.ControllerPublishVolumeRequest, error) {
	capability, err := csi.Capability(s.spec, info.Has(csipb.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER), o.DefaultFSType)
	if err != nil {
		return nil, err
	}
	source, desired := s.spec.CSI, s.desired()
	return &csipb.ControllerPublishVolumeRequest{
		VolumeId:         desired.handle,
		NodeId:           desired.nodeID,
		VolumeCapability: capability,
		Readonly:         source.ReadOnly && info.Has(csipb.ControllerServiceCapability_RPC_PUBLISH_READONLY),
		VolumeContext:    source.VolumeAttributes,
	}, nil
}
