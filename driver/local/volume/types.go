package volume

import (
	"errors"
	"time"
)

// Errors of the store. Every error that it returns wraps one of these, except I/O
// errors.
var (
	// ErrInvalid reports a request that can never succeed as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrNotFound reports a volume or snapshot that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrOtherStorage reports an ID that this data directory does not have and another
	// storage may have. Only the driver of that storage can handle the request.
	ErrOtherStorage = errors.New("in another storage")
	// ErrSourceInOtherStorage reports a volume that can only be created in the storage
	// of its source.
	ErrSourceInOtherStorage = errors.New("its source is in another storage")
	// ErrOutcomeUnknown reports a request that another storage may already have
	// carried out.
	ErrOutcomeUnknown = errors.New("the outcome of an earlier attempt is unknown")
	// ErrExists reports a name that is used by something that differs from the
	// request.
	ErrExists = errors.New("exists already and differs")
	// ErrOutOfRange reports a size that is not possible.
	ErrOutOfRange = errors.New("size not possible")
	// ErrOutOfCapacity reports a request that exceeds the capacity.
	ErrOutOfCapacity = errors.New("not enough capacity")
	// ErrInUse reports an operation that is not allowed while a workload uses the
	// volume.
	ErrInUse = errors.New("in use")
	// ErrPending reports a volume or snapshot on which another call is working.
	ErrPending = errors.New("another operation is pending")
	// ErrDamaged reports a volume or snapshot with an invalid record or image.
	ErrDamaged = errors.New("damaged")
	// ErrNotAttached reports the use of a volume on a node to which it is not
	// attached, or no longer attached.
	ErrNotAttached = errors.New("not attached to this node")
	// ErrLocked reports a data directory that another process uses.
	ErrLocked = errors.New("data directory in use")
)

// Format is the progress of creating a volume's filesystem. It is recorded before each
// step, so that the driver never takes data for the remains of an interrupted mkfs.
type Format string

const (
	// Unformatted volumes were never formatted by this driver.
	Unformatted Format = ""
	// Formatting volumes never held data: mkfs may run again.
	Formatting Format = "formatting"
	// Formatted volumes have a filesystem, whatever their first bytes contain.
	Formatted Format = "formatted"
)

// Access lists the access types of a volume.
type Access struct {
	// Mount is use as a filesystem.
	Mount bool `json:"mount,omitempty"`
	// Block is use as a raw device.
	Block bool `json:"block,omitempty"`
}

// SourceKind is the kind of a volume's content source.
type SourceKind string

// The two kinds of source.
const (
	FromVolume   SourceKind = "volume"
	FromSnapshot SourceKind = "snapshot"
)

// Source is the content source of a volume.
type Source struct {
	Kind SourceKind `json:"kind"`
	ID   string     `json:"id"`
}

// Volume is the record of a volume.
type Volume struct {
	// ID is derived from Name and the storage, and safe to be part of a path.
	ID string `json:"id"`
	// Name is the name in the request, at most 128 bytes.
	Name string `json:"name"`
	// Size is in bytes and a multiple of Step.
	Size int64 `json:"size"`
	// Growing is the target size of an unfinished expansion, 0 for none.
	Growing int64 `json:"growing,omitempty"`
	// Access is fixed when the volume is created.
	Access Access `json:"access"`
	// FSType is the filesystem for Access.Mount, "" for volumes without it.
	FSType string `json:"fsType,omitempty"`
	// Format is the progress of creating the filesystem.
	Format Format `json:"format,omitempty"`
	// Source is nil for volumes that were created empty.
	Source *Source `json:"source,omitempty"`
	// Shared is true if the image was created as a reflink of its source.
	Shared bool `json:"shared,omitempty"`
	// Created is when the record was written, in UTC.
	Created time.Time `json:"created"`
}

// promised is the space that the volume may occupy.
func (v Volume) promised() int64 {
	return max(v.Size, v.Growing)
}

// Snapshot is the record of a snapshot. A snapshot does not depend on its volume.
type Snapshot struct {
	// ID is derived from Name and the storage, and safe to be part of a path.
	ID string `json:"id"`
	// Name is what the caller called it, at most 128 bytes.
	Name string `json:"name"`
	// VolumeID is the source volume, which may no longer exist.
	VolumeID string `json:"volumeId"`
	// GroupID is the group that the snapshot belongs to, "" for none. The snapshot
	// exists only while the group's record does, and has the group's name.
	GroupID string `json:"groupId,omitempty"`
	// Size is the volume's size when the snapshot was taken, in bytes.
	Size int64 `json:"size"`
	// FSType and Format are the volume's when the snapshot was taken.
	FSType string `json:"fsType,omitempty"`
	Format Format `json:"format,omitempty"`
	// Shared is true if the image was created as a reflink of the volume's.
	Shared bool `json:"shared,omitempty"`
	// Created is the point in time of the content, in UTC.
	Created time.Time `json:"created"`
}

// Group is the record of a group snapshot: snapshots of one point in time.
type Group struct {
	// ID is derived from Name and the storage, and safe to be part of a path.
	ID string `json:"id"`
	// Name is what the caller called it, at most 128 bytes.
	Name string `json:"name"`
	// VolumeIDs are the source volumes, in the order of the request. The IDs of the
	// members are derived from them.
	VolumeIDs []string `json:"volumeIds"`
	// Created is the point in time of the members' content, in UTC.
	Created time.Time `json:"created"`
}

// Spec is a request for a new volume.
type Spec struct {
	// Name identifies the request: one name, one volume.
	Name string
	// Range is the requested size.
	Range Range
	// Access and FSType are as in Volume.
	Access Access
	FSType string
	// Source is nil for an empty volume.
	Source *Source
}
