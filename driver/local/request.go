package local

import (
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-io/holdfast/driver/local/disk"
	"github.com/holdfast-io/holdfast/driver/local/volume"
)

// maxMap is the size limit of maps and of mount_flags in the CSI spec, in bytes.
const maxMap = 4 << 10

// supportedModes are the access modes for volumes that are on one node at a time.
var supportedModes = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
}

// knownParameters are the keys with which the provisioner and the snapshotter name the
// objects they work for. The driver itself has no parameters.
var knownParameters = []string{
	"csi.storage.k8s.io/pvc/name",
	"csi.storage.k8s.io/pvc/namespace",
	"csi.storage.k8s.io/pv/name",
	"csi.storage.k8s.io/volumesnapshot/name",
	"csi.storage.k8s.io/volumesnapshot/namespace",
	"csi.storage.k8s.io/volumesnapshotcontent/name",
	"csi.storage.k8s.io/volumegroupsnapshot/name",
	"csi.storage.k8s.io/volumegroupsnapshot/namespace",
	"csi.storage.k8s.io/volumegroupsnapshotcontent/name",
}

// use is the content of a volume capability.
type use struct {
	mode      csi.VolumeCapability_AccessMode_Mode
	block     bool
	fsType    string // "" if unspecified
	flags     []string
	readOnly  bool
	exclusive bool
}

// useOf validates and converts a capability.
func useOf(c *csi.VolumeCapability) (use, error) {
	mode := c.GetAccessMode().GetMode()
	switch {
	case c == nil:
		return use{}, invalid("the volume capability is missing")
	case c.GetBlock() == nil && c.GetMount() == nil:
		return use{}, invalid("the volume capability has no access type")
	case mode == csi.VolumeCapability_AccessMode_UNKNOWN:
		return use{}, invalid("the volume capability has no access mode")
	case !slices.Contains(supportedModes, mode):
		return use{}, invalid("access mode %s: a volume of this driver can be used on one node at a time; only the SINGLE_NODE modes (in Kubernetes ReadWriteOnce and ReadWriteOncePod) are supported", mode)
	}
	u := use{
		mode:      mode,
		block:     c.GetBlock() != nil,
		fsType:    c.GetMount().GetFsType(),
		flags:     c.GetMount().GetMountFlags(),
		readOnly:  mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
		exclusive: mode != csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	}
	if u.fsType != "" && u.fsType != disk.Ext4 && u.fsType != disk.XFS {
		return use{}, invalid("filesystem %q: %s and %s are supported", u.fsType, disk.Ext4, disk.XFS)
	}
	if len(strings.Join(u.flags, "")) > maxMap {
		return use{}, invalid("the mount flags have more than %d bytes", maxMap)
	}
	return u, nil
}

// accessOf merges the capabilities, all of which a volume must have.
func accessOf(all []*csi.VolumeCapability) (access volume.Access, fsType string, err error) {
	if len(all) == 0 {
		return access, "", invalid("the volume capabilities are missing")
	}
	for _, c := range all {
		u, err := useOf(c)
		if err != nil {
			return access, "", err
		}
		access.Block = access.Block || u.block
		access.Mount = access.Mount || !u.block
		if fsType, err = commonFSType(fsType, u.fsType); err != nil {
			return access, "", err
		}
	}
	if access.Mount && fsType == "" {
		fsType = disk.Ext4
	}
	return access, fsType, nil
}

// commonFSType returns the filesystem that a and b agree on; "" agrees with any.
func commonFSType(a, b string) (string, error) {
	if a != "" && b != "" && a != b {
		return "", invalid("one volume cannot be both %s and %s", a, b)
	}
	return max(a, b), nil // one of them is "" or they are equal
}

// checkParameters rejects unknown parameters, which the driver would otherwise
// silently ignore.
func (o *Options) checkParameters(parameters map[string]string) error {
	size := 0
	for key, value := range parameters {
		size += len(key) + len(value)
		if !slices.Contains(knownParameters, key) && !slices.Contains(o.IgnoredParameters, key) {
			return invalid("parameter %q: this driver has no such parameter", key)
		}
	}
	if size > maxMap {
		return invalid("the parameters have more than %d bytes", maxMap)
	}
	return nil
}

// checkMutable rejects mutable parameters: the driver does not report MODIFY_VOLUME.
func checkMutable(parameters map[string]string) error {
	for key := range parameters {
		return invalid("mutable parameter %q: this driver has no mutable parameters", key)
	}
	return nil
}

// sourceOf converts a content source.
func sourceOf(s *csi.VolumeContentSource) (*volume.Source, error) {
	var source *volume.Source
	switch {
	case s == nil:
		return nil, nil
	case s.GetSnapshot() != nil:
		source = &volume.Source{Kind: volume.FromSnapshot, ID: s.GetSnapshot().GetSnapshotId()}
	case s.GetVolume() != nil:
		source = &volume.Source{Kind: volume.FromVolume, ID: s.GetVolume().GetVolumeId()}
	default:
		return nil, invalid("the content source is neither a snapshot nor a volume")
	}
	if source.ID == "" {
		return nil, invalid("the content source has no ID")
	}
	return source, nil
}

func rangeOf(r *csi.CapacityRange) volume.Range {
	return volume.Range{Required: r.GetRequiredBytes(), Limit: r.GetLimitBytes()}
}

// required returns an error for the first of the named fields that is empty.
func required(fields ...string) error {
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i+1] == "" {
			return invalid("%s is missing", fields[i])
		}
	}
	return nil
}
