package groupsnapshot

import (
	"cmp"
	"context"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	groupv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumegroupsnapshot/v1"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
	"github.com/holdfast-io/holdfast/internal/snapshot"
	"github.com/holdfast-io/holdfast/internal/snapshot/sidecar"
)

// ContentKind is the kind of VolumeGroupSnapshotContents.
type ContentKind struct{ Names snapshot.Naming }

var _ sidecar.ContentKind = ContentKind{}

// Supported reports whether a driver supports group snapshots.
func Supported(driver *csi.Driver) bool {
	return driver.Info().HasGroup(csipb.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT)
}

// Name implements sidecar.ContentKind.
func (ContentKind) Name() string { return "groupsnapshot" }

// Keys implements sidecar.ContentKind.
func (ContentKind) Keys() snapshot.Keys { return snapshot.Group }

// Reasons implements sidecar.ContentKind.
func (ContentKind) Reasons() sidecar.Reasons {
	return sidecar.Reasons{
		Create: "GroupSnapshotCreationFailed", Check: "GroupSnapshotContentCheckandUpdateFailed", Delete: "GroupSnapshotDeleteError",
	}
}

// Naming implements sidecar.ContentKind.
func (k ContentKind) Naming() snapshot.Naming { return k.Names }

// New implements sidecar.ContentKind.
func (ContentKind) New() client.Object { return &groupv1.VolumeGroupSnapshotContent{} }

// NewList implements sidecar.ContentKind.
func (ContentKind) NewList() client.ObjectList { return &groupv1.VolumeGroupSnapshotContentList{} }

// NewClass implements sidecar.ContentKind.
func (ContentKind) NewClass() client.Object { return &groupv1.VolumeGroupSnapshotClass{} }

// Read implements sidecar.ContentKind.
func (ContentKind) Read(o client.Object) sidecar.Content {
	content := o.(*groupv1.VolumeGroupSnapshotContent) //nolint:forcetypeassert // The reconciler only passes objects from New.
	spec := content.Spec
	c := sidecar.Content{
		Object: content, Ref: spec.VolumeGroupSnapshotRef, Driver: spec.Driver, Class: ptr.Deref(spec.VolumeGroupSnapshotClassName, ""),
		Retain: spec.DeletionPolicy == snapshotv1.VolumeSnapshotContentRetain, Volumes: spec.Source.VolumeHandles,
	}
	if given := spec.Source.GroupSnapshotHandles; given != nil {
		c.PreProvisioned = given.VolumeGroupSnapshotHandle
	}
	if s := content.Status; s != nil {
		c.HasStatus, c.Handle, c.Ready = true, ptr.Deref(s.VolumeGroupSnapshotHandle, ""), ptr.Deref(s.ReadyToUse, false)
		c.Members, c.Error = membersOf(s), s.Error
		if s.CreationTime != nil {
			c.Created = s.CreationTime.UnixNano()
		}
	}
	return c
}

// membersOf converts the members in a status, sorted by volume.
func membersOf(s *groupv1.VolumeGroupSnapshotContentStatus) []sidecar.Member {
	var members []sidecar.Member
	for _, m := range s.VolumeSnapshotInfoList {
		members = append(members, sidecar.Member{
			Volume: m.VolumeHandle, Handle: m.SnapshotHandle, Ready: ptr.Deref(m.ReadyToUse, false),
			Created: ptr.Deref(m.CreationTime, 0), Size: ptr.Deref(m.RestoreSize, 0),
		})
	}
	return sortMembers(members)
}

func sortMembers(members []sidecar.Member) []sidecar.Member {
	slices.SortFunc(members, func(a, b sidecar.Member) int { return cmp.Compare(a.Volume, b.Volume) })
	return members
}

// ReadClass implements sidecar.ContentKind.
func (ContentKind) ReadClass(ctx context.Context, from client.Reader, name string) (*snapshot.Class, error) {
	return snapshot.ReadGroupClass(ctx, from, name)
}

// ReadSecret implements sidecar.ContentKind.
func (ContentKind) ReadSecret(class *snapshot.Class, content string) (*corev1.SecretReference, error) {
	if class == nil {
		return nil, nil
	}
	return snapshot.GroupGetter.Resolve(class.Parameters, snapshot.GroupTokens(content, corev1.ObjectReference{}))
}

// AddMetadata implements sidecar.ContentKind.
func (ContentKind) AddMetadata(parameters map[string]string, c *sidecar.Content) {
	snapshot.AddGroupMetadataParameters(parameters, c.Ref, c.Object.GetName())
}

// Create implements sidecar.ContentKind.
func (ContentKind) Create(ctx context.Context, driver *csi.Driver, r sidecar.Request) (*sidecar.Snapshot, error) {
	made, err := driver.CreateVolumeGroupSnapshot(ctx, &csipb.CreateVolumeGroupSnapshotRequest{
		Name: r.Name, SourceVolumeIds: r.Volumes, Parameters: r.Parameters, Secrets: r.Secrets,
	})
	if err != nil {
		return nil, err
	}
	return snapshotOf(made), nil
}

// Get implements sidecar.ContentKind.
func (ContentKind) Get(ctx context.Context, driver *csi.Driver, c *sidecar.Content, secrets map[string]string) (*sidecar.Snapshot, error) {
	found, err := driver.GetVolumeGroupSnapshot(ctx, &csipb.GetVolumeGroupSnapshotRequest{
		GroupSnapshotId: cmp.Or(c.Handle, c.PreProvisioned), SnapshotIds: memberHandles(c), Secrets: secrets,
	})
	if err != nil {
		return nil, err
	}
	made := snapshotOf(found)
	return withRecordedVolumes(c, made), nil
}

// withRecordedVolumes has the members of a group name their volumes as they were recorded: drivers
// may name them in words of their own.
func withRecordedVolumes(c *sidecar.Content, made *sidecar.Snapshot) *sidecar.Snapshot {
	volumes := map[string]string{}
	for _, m := range c.Members {
		volumes[m.Handle] = m.Volume
	}
	for n := range made.Members {
		if volume := volumes[made.Members[n].Handle]; volume != "" {
			made.Members[n].Volume = volume
		}
	}
	made.Members = sortMembers(made.Members)
	return made
}

// Delete implements sidecar.ContentKind. The members are deleted with the group: the request
// has all of their handles, and none is ever deleted alone.
func (ContentKind) Delete(ctx context.Context, driver *csi.ConditionalDriver, c *sidecar.Content, secrets map[string]string) error {
	return driver.DeleteVolumeGroupSnapshot(ctx, &csipb.DeleteVolumeGroupSnapshotRequest{
		GroupSnapshotId: cmp.Or(c.Handle, c.PreProvisioned), SnapshotIds: memberHandles(c), Secrets: secrets,
	})
}

// Discard implements sidecar.ContentKind. A group without an id cannot be deleted, and neither
// can its members.
func (ContentKind) Discard(ctx context.Context, driver *csi.ConditionalDriver, bad *csi.InvalidResponse, secrets map[string]string) error {
	return driver.DeleteVolumeGroupSnapshot(ctx, &csipb.DeleteVolumeGroupSnapshotRequest{
		GroupSnapshotId: bad.ID, SnapshotIds: bad.MemberIDs, Secrets: secrets,
	})
}

// ListIDs implements sidecar.ContentKind. CSI cannot list groups.
func (ContentKind) ListIDs(context.Context, *csi.Driver, *sidecar.Content, map[string]string) (ids []string, ok bool, err error) {
	return nil, false, nil
}

// memberHandles returns the handles of the members: those in the status or, for a
// pre-provisioned group without status, those in the spec.
func memberHandles(c *sidecar.Content) []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.Handle)
	}
	content, ok := c.Object.(*groupv1.VolumeGroupSnapshotContent)
	if len(all) == 0 && ok && content.Spec.Source.GroupSnapshotHandles != nil {
		return content.Spec.Source.GroupSnapshotHandles.VolumeSnapshotHandles
	}
	return all
}

// StatusPatch implements sidecar.ContentKind. What was said once about handle and times is never
// said again; whether the members are ready is said each time.
func (ContentKind) StatusPatch(c *sidecar.Content, made *sidecar.Snapshot) map[string]any {
	status := map[string]any{"readyToUse": made.Ready, "volumeSnapshotInfoList": memberInfos(c, made)}
	if c.Handle == "" {
		status["volumeGroupSnapshotHandle"] = made.Handle
	}
	if c.Created == 0 {
		status["creationTime"] = metav1.NewTime(time.Unix(0, made.Created))
	}
	return status
}

func memberInfos(c *sidecar.Content, made *sidecar.Snapshot) []groupv1.VolumeSnapshotInfo {
	before := map[string]int64{}
	for _, m := range c.Members {
		before[m.Handle] = m.Created
	}
	list := []groupv1.VolumeSnapshotInfo{}
	for _, m := range made.Members {
		info := groupv1.VolumeSnapshotInfo{
			VolumeHandle: m.Volume, SnapshotHandle: m.Handle, ReadyToUse: ptr.To(m.Ready),
			CreationTime: ptr.To(cmp.Or(before[m.Handle], m.Created, c.Created, made.Created)),
		}
		if m.Size > 0 {
			info.RestoreSize = ptr.To(m.Size)
		}
		list = append(list, info)
	}
	return list
}

// snapshotOf is a driver's answer. A group is ready when all of its members are,
// whatever it says of itself.
func snapshotOf(g *csipb.VolumeGroupSnapshot) *sidecar.Snapshot {
	c := &sidecar.Snapshot{Handle: g.GetGroupSnapshotId(), Ready: g.GetReadyToUse(), Created: csi.Nanoseconds(g.GetCreationTime())}
	for _, s := range g.GetSnapshots() {
		c.Members = append(c.Members, sidecar.Member{
			Volume: s.GetSourceVolumeId(), Handle: s.GetSnapshotId(), Ready: s.GetReadyToUse(),
			Created: csi.Nanoseconds(s.GetCreationTime()), Size: s.GetSizeBytes(),
		})
		c.Ready = c.Ready && s.GetReadyToUse()
	}
	c.Members = sortMembers(c.Members)
	return c
}
