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

// A Class is a class of snapshots, of either kind.
type Class struct {
	Name, Driver string
	Parameters   map[string]string
	Policy       snapshotv1.DeletionPolicy
	Default      bool // for snapshots of its driver that name none
}

// Retain tells whether what is at the driver stays when the snapshot is deleted.
func (c *Class) Retain() bool { return c.Policy == snapshotv1.VolumeSnapshotContentRetain }

// ReadClass reads a VolumeSnapshotClass; nil if there is none of that name.
func ReadClass(ctx context.Context, from client.Reader, name string) (*Class, error) {
	var class *snapshotv1.VolumeSnapshotClass
	if err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: name}, &class); err != nil || class == nil {
		return nil, err
	}
	return ClassOf(class), nil
}

// ReadGroupClass reads a VolumeGroupSnapshotClass; nil if there is none of that
// name.
func ReadGroupClass(ctx context.Context, from client.Reader, name string) (*Class, error) {
	var class *groupv1.VolumeGroupSnapshotClass
	if err := kube.GetIfExists(ctx, from, client.ObjectKey{Name: name}, &class); err != nil || class == nil {
		return nil, err
	}
	return GroupClassOf(class), nil
}

// ClassOf is what a VolumeSnapshotClass says.
func ClassOf(c *snapshotv1.VolumeSnapshotClass) *Class {
	return &Class{
		Name: c.Name, Driver: c.Driver, Parameters: c.Parameters,
		Policy: c.DeletionPolicy, Default: c.Annotations[Single.Default] == "true",
	}
}

// GroupClassOf is what a VolumeGroupSnapshotClass says.
func GroupClassOf(c *groupv1.VolumeGroupSnapshotClass) *Class {
	return &Class{
		Name: c.Name, Driver: c.Driver, Parameters: c.Parameters,
		Policy: c.DeletionPolicy, Default: c.Annotations[Group.Default] == "true",
	}
}

// A ClassChoice is how a snapshot, of either kind, comes to its class: it names one,
// or has the one that is the default of its volumes' driver.
type ClassChoice struct {
	Kind     string   // of the class
	Keys     Keys     // of the snapshot
	Named    string   // by the snapshot; empty for none
	Defaults []string // the driver's default classes, if none is named
	Driver   string   // of the volumes
	Claim    string   // one of those that are cut
	Class    *Class   // nil if it is not there

	Reason, DefaultReason string // of the events
}

// Check tells what is wrong with it.
func (c *ClassChoice) Check() *Problem {
	switch {
	case c.Named == "" && len(c.Defaults) == 0:
		return Problemf(c.DefaultReason, "the snapshot names no class, and driver %s has no default: name a class, or give one of its %ses the annotation %s=true",
			c.Driver, c.Kind, c.Keys.Default)
	case c.Named == "" && len(c.Defaults) > 1:
		return Problemf(c.DefaultReason, "the snapshot names no class, and driver %s has %d default snapshot classes (%s): name one, or leave only one the default",
			c.Driver, len(c.Defaults), strings.Join(c.Defaults, ", "))
	case c.Class == nil:
		return Problemf(c.Reason, "%s %s is not there", c.Kind, c.className())
	case c.Class.Driver != c.Driver:
		return Problemf(c.Reason, "%s %s is of driver %s, and claim %s has a volume of driver %s", c.Kind, c.className(), c.Class.Driver, c.Claim, c.Driver)
	}
	return nil
}

// className is that of the class that it comes to.
func (c *ClassChoice) className() string { return cmp.Or(c.Named, append(c.Defaults, "")[0]) }
