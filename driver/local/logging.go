package local

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/protosanitizer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
)

// unaryInterceptor gives each call a logger, converts its error, and logs it: failures
// always, successes at V(1).
func unaryInterceptor(logger klog.Logger) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		logger := logger.WithValues("method", info.FullMethod)
		start := time.Now()
		response, err := handle(klog.NewContext(ctx, logger), request)
		err = toStatus(err)
		if err != nil {
			logger.Info("Call failed", "code", status.Code(err), "err", status.Convert(err).Message(), "request", loggable(request), "duration", time.Since(start))
			return nil, err
		}
		logger.V(1).Info("Call succeeded", "request", loggable(request), "duration", time.Since(start))
		return response, nil
	}
}

// stripped replaces values that must not be logged.
const stripped = "***stripped***"

// loggable returns request without its secrets. It also strips mount flags: they may
// be secret (CSI spec, VolumeCapability.MountVolume) although they are not marked.
func loggable(request any) fmt.Stringer {
	message, ok := request.(proto.Message)
	if !ok {
		return protosanitizer.StripSecrets(request)
	}
	message = proto.Clone(message)
	for _, c := range capabilitiesIn(message) {
		for i := range c.GetMount().GetMountFlags() {
			c.GetMount().MountFlags[i] = stripped
		}
	}
	return protosanitizer.StripSecrets(message)
}

func capabilitiesIn(message proto.Message) []*csi.VolumeCapability {
	switch m := message.(type) {
	case interface {
		GetVolumeCapability() *csi.VolumeCapability
	}:
		return []*csi.VolumeCapability{m.GetVolumeCapability()}
	case interface {
		GetVolumeCapabilities() []*csi.VolumeCapability
	}:
		return m.GetVolumeCapabilities()
	default:
		return nil
	}
}
