package sidecar

import (
	"cmp"
	"slices"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/holdfast-io/holdfast/internal/csi"
)

// An orphan is a snapshot at the driver that no content refers to.
type orphan struct {
	handle, volume     string
	created            time.Time // zero if the driver does not say
	bytes              int64     // size of a volume that is restored from it; 0 if the driver does not say
	namedBySnapshotter bool      // the handle contains a name in csi-snapshotter's format
}

// knownSnapshots are the snapshots that a driver's contents refer to.
type knownSnapshots struct {
	driver  string
	handles map[string]bool
	// creating are the volumes of which a snapshot is being created. Its handle is not
	// known yet.
	creating map[string]bool
}

func newKnownSnapshots(driver string) *knownSnapshots {
	return &knownSnapshots{driver: driver, handles: map[string]bool{}, creating: map[string]bool{}}
}

// add adds the snapshots of contents, regardless of class and node.
func (k *knownSnapshots) add(contents []snapshotv1.VolumeSnapshotContent) {
	for i := range contents {
		c := SingleKind{}.Read(&contents[i])
		if c.Driver != k.driver {
			continue
		}
		k.handles[c.Handle], k.handles[c.PreProvisioned] = true, true
		if c.handle() != "" {
			continue
		}
		for _, volume := range c.Volumes {
			k.creating[volume] = true
		}
	}
}

// knownHandles returns the handles that the driver's contents refer to, regardless of class
// and node.
func (r *Reconciler) knownHandles(contents client.ObjectList) map[string]bool {
	handles := map[string]bool{}
	_ = meta.EachListItem(contents, func(o runtime.Object) error {
		c := r.kind.Read(o.(client.Object)) //nolint:forcetypeassert // The list has objects of the kind.
		if c.Driver == r.options.Driver {
			handles[c.Handle], handles[c.PreProvisioned] = true, true
		}
		return nil
	})
	return handles
}

// orphans returns the listed snapshots, sorted by handle, that are not known and were
// created before the given time.
func orphans(listed map[string]*csipb.Snapshot, k *knownSnapshots, before time.Time) []orphan {
	var all []orphan
	for handle, s := range listed {
		if k.handles[handle] || k.creating[s.GetSourceVolumeId()] {
			continue
		}
		o := orphan{handle: handle, volume: s.GetSourceVolumeId(), bytes: s.GetSizeBytes()}
		if at := csi.Nanoseconds(s.GetCreationTime()); at > 0 {
			o.created = time.Unix(0, at)
		}
		if o.created.Before(before) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b orphan) int { return cmp.Compare(a.handle, b.handle) })
	return all
}
