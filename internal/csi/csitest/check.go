package csitest

import (
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxName is the specification's limit for strings, in bytes ("Size Limits").
const maxName = 128

func errMissing(field string) error {
	return status.Errorf(codes.InvalidArgument, "%s is missing", field)
}

func checkName(name string) error {
	if name == "" {
		return errMissing("name")
	}
	if len(name) > maxName {
		return status.Errorf(codes.InvalidArgument, "the name is longer than %d bytes", maxName)
	}
	return nil
}

func checkCapabilities(all ...*csipb.VolumeCapability) error {
	if len(all) == 0 {
		return errMissing("volume capability")
	}
	for _, c := range all {
		if c.GetMount() == nil && c.GetBlock() == nil {
			return errMissing("access type")
		}
		if c.GetAccessMode().GetMode() == csipb.VolumeCapability_AccessMode_UNKNOWN {
			return errMissing("access mode")
		}
	}
	return nil
}

func (d *Driver) checkRange(r *csipb.CapacityRange) error {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	if required < 0 || limit < 0 || (limit > 0 && required > limit) {
		return status.Errorf(codes.InvalidArgument, "%d to %d bytes is not a valid range", required, limit)
	}
	if d.opts.MaxVolumeSize > 0 && required > d.opts.MaxVolumeSize {
		return status.Errorf(codes.OutOfRange, "%d bytes are more than the maximum volume size", required)
	}
	return nil
}

func (d *Driver) checkMutable(parameters map[string]string) error {
	for key := range parameters {
		if !slices.Contains(d.opts.MutableKeys, key) {
			return status.Errorf(codes.InvalidArgument, "parameter %q is unknown", key)
		}
	}
	return nil
}
