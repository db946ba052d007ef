package snapshot

import (
	"cmp"
	"context"
	"strings"

	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/kube"
)

// A Class is a VolumeSnapshotClass or a VolumeGroupSnapshotClass.
type Class struct {
	Name, Driver string
	Parameters   map[string]string
	Policy       snapshotv1.DeletionPolicy
	Default      bool // used for snapshots of its driver that name no class
}

// Retain reports whether the driver's snapshot is kept when the VolumeSnapshot is deleted.
func (c *Class) Retain() bool { return c.Policy == snapshotv1.VolumeSnapshotContentRetain }

// ReadClass reads a VolumeSnapshotClass. It returns nil if the class does not exist.
func ReadClass(ctx context.Context, from client.Reader, name string) (*Class, error) {
	var class *snapshotv1.VolumeSnapshotClass
	if err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: name}, &class); err != nil || class == nil {
		return nil, err
	}
	return ClassOf(class), nil
}

// ReadGroupClass reads a VolumeGroupSnapshotClass. It returns nil if the class does not exist.
func ReadGroupClass(ctx context.Context, from client.Reader, name string) (*Class, error) {
	var class *groupv1.VolumeGroupSnapshotClass
	if err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: name}, &class); err != nil || class == nil {
		return nil, err
	}
	return GroupClassOf(class), nil
}

// ClassOf converts a VolumeSnapshotClass.
func ClassOf(c *snapshotv1.VolumeSnapshotClass) *Class {
	return &Class{
		Name: c.Name, Driver: c.Driver, Parameters: c.Parameters,
		Policy: c.DeletionPolicy, Default: c.Annotations[Single.Default] == "true",
	}
}

// GroupClassOf converts a VolumeGroupSnapshotClass.
func GroupClassOf(c *groupv1.VolumeGroupSnapshotClass) *Class {
	return &Class{
		Name: c.Name, Driver: c.Driver, Parameters: c.Parameters,
		Policy: c.DeletionPolicy, Default: c.Annotations[Group.Default] == "true",
	}
}

// A ClassChoice is the choice of a snapshot's class: the class that the snapshot names, or the
// default class of its volumes' driver.
type ClassChoice struct {
	Kind     string   // kind of the class
	Keys     Keys     // of the snapshot's kind
	Named    string   // the class that the snapshot names; may be empty
	Defaults []string // the driver's default classes, if none is named
	Driver   string   // of the volumes
	Claim    string   // one of the source claims
	Class    *Class   // nil if it does not exist

	Reason, DefaultReason string // of the events
}

// Check returns what is wrong with the choice, or nil.
func (c *ClassChoice) Check() *Problem {
	switch {
	case c.Named == "" && len(c.Defaults) == 0:
		return Problemf(c.DefaultReason, "the snapshot names no class, and driver %s has no default class: name a class, or annotate one %s of the driver with %s=true",
			c.Driver, c.Kind, c.Keys.Default)
	case c.Named == "" && len(c.Defaults) > 1:
		return Problemf(c.DefaultReason, "the snapshot names no class, and driver %s has %d default snapshot classes (%s): name a class, or mark only one as default",
			c.Driver, len(c.Defaults), strings.Join(c.Defaults, ", "))
	case c.Class == nil:
		return Problemf(c.Reason, "%s %s does not exist", c.Kind, c.className())
	case c.Class.Driver != c.Driver:
		return Problemf(c.Reason, "%s %s is of driver %s, and claim %s has a volume of driver %s", c.Kind, c.className(), c.Class.Driver, c.Claim, c.Driver)
	}
	return nil
}

// className returns the name of the chosen class.
func (c *ClassChoice) className() string { return cmp.Or(c.Named, append(c.Defaults, "")[0]) }
