package attach

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/migrate"
)

// clusterWith returns a cluster with some volumes and one node.
func clusterWith(volumes ...*corev1.PersistentVolume) *clusterState {
	c := newClusterState(options.Plugin)
	for _, v := range volumes {
		c.addVolume(context.Background(), options, v)
	}
	c.nodeIDByName["node"], c.nodeIDs["id-of-node"] = "id-of-node", true
	return c
}

func TestCompare(t *testing.T) {
	here := publication{"vol", "id-of-node"}
	tests := map[string]struct {
		changes      []func(*state) // of the only VolumeAttachment; nil for none
		meanwhile    bool           // it changed while the driver was listing
		listed       []publication
		contradicted bool
		dangling     []publication
	}{
		"attached and listed":                                           {[]func(*state){recorded, isAttachedNow}, false, []publication{here}, false, nil},
		"attached but not listed":                                       {[]func(*state){recorded, isAttachedNow}, false, nil, true, nil},
		"not attached but listed":                                       {[]func(*state){recorded}, false, []publication{here}, true, nil},
		"neither attached nor listed":                                   {[]func(*state){recorded}, false, nil, false, nil},
		"a VolumeAttachment that changed meanwhile is ignored":          {[]func(*state){recorded, isAttachedNow}, true, nil, false, nil},
		"without a record the current volume and node are compared":     {[]func(*state){isAttachedNow}, false, nil, true, nil},
		"without a record and a node nothing is compared":               {[]func(*state){isAttachedNow, func(s *state) { s.attachment.Spec.NodeName = "gone" }}, false, nil, false, nil},
		"a volume of ours without a VolumeAttachment dangles":           {nil, false, []publication{here}, false, []publication{here}},
		"a volume of ours on a deleted node dangles":                    {nil, false, []publication{{"vol", "gone"}}, false, []publication{{"vol", "gone"}}},
		"a disk of our node without a PersistentVolume does not dangle": {nil, false, []publication{{"etcd", "id-of-node"}}, false, nil},
		"a volume of another cluster does not dangle":                   {nil, false, []publication{{"other", "elsewhere"}}, false, nil},
		"a volume that is being detached does not dangle":               {[]func(*state){recorded, deleting, isAttachedNow}, false, []publication{here}, false, nil},
		"a volume dangles only on nodes it is not attached to": {
			[]func(*state){recorded, isAttachedNow}, false, []publication{here, {"vol", "gone"}}, false, []publication{{"vol", "gone"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newState()
			for _, change := range tt.changes {
				change(&s)
			}
			c := &comparison{listed: publications{}, clusterState: clusterWith(newState().volume)}
			if tt.changes != nil {
				c.before, c.after = []storagev1.VolumeAttachment{*s.attachment}, []storagev1.VolumeAttachment{*s.attachment}
			}
			if tt.meanwhile {
				c.after[0].ResourceVersion = "2"
			}
			for _, p := range tt.listed {
				c.listed[p] = true
			}
			got := c.compare()
			if (len(got.mismatched) == 1) != tt.contradicted {
				t.Errorf("mismatched: %v", got.mismatched)
			}
			if len(got.dangling) != len(tt.dangling) {
				t.Errorf("dangling: %v", got.dangling)
			}
			for p := range got.dangling {
				if !slices.Contains(tt.dangling, p) {
					t.Errorf("%v dangles", p)
				}
			}
		})
	}
}

// A publication that may belong to a VolumeAttachment is reported, but not detached.
func TestDanglingAttachmentMayHaveAPossibleOwner(t *testing.T) {
	vol, other := publication{"vol", "id-of-node"}, publication{"vol", "gone"}
	node := func(name string) func(*state) { return func(s *state) { s.attachment.Spec.NodeName = name } }
	unknown := func(s *state) { *s.attachment.Spec.Source.PersistentVolumeName = "gone" }
	tests := map[string]struct {
		changes []func(*state) // of a VolumeAttachment
		listed  publication
		doubt   bool
	}{
		"one that upstream wrote, without its volume, may own every volume of its node": {[]func(*state){attachedByUpstream, unknown}, vol, true},
		"one that upstream wrote and that is being deleted may, too":                    {[]func(*state){attachedByUpstream, unknown, deleting}, vol, true},
		"one without our finalizer and without its volume may, too":                     {[]func(*state){unknown}, vol, true},
		"it does not own volumes of other nodes":                                        {[]func(*state){attachedByUpstream, unknown}, other, false},
		"it does not own other volumes if it has its own on record":                     {[]func(*state){recorded, unknown, func(s *state) { s.attachment.Annotations[handleAnnotation] = "old" }}, vol, false},
		"one without its node may own its volume on every deleted node":                 {[]func(*state){node("gone")}, other, true},
		"it does not own its volume on an existing node":                                {[]func(*state){node("gone")}, vol, false},
		"one without its volume and node may own every volume of deleted nodes":         {[]func(*state){unknown, node("gone")}, other, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newState()
			for _, change := range tt.changes {
				change(&s)
			}
			c := &comparison{listed: publications{tt.listed: true}, after: []storagev1.VolumeAttachment{*s.attachment}, clusterState: clusterWith(newState().volume)}
			d, found := c.compare().dangling[tt.listed]
			if !found || (d.possibleOwner != "") != tt.doubt {
				t.Errorf("found %t, possible owner %q", found, d.possibleOwner)
			}
		})
	}
}

// A record is enough to know that a volume belongs to this cluster, and how to detach it.
func TestVolumeNamedOnlyByARecordDangles(t *testing.T) {
	s := newState()
	hasOurFinalizer(&s)
	secret := &corev1.SecretReference{Namespace: "ns", Name: "s"}
	s.attachment.Annotations = record{handle: "old", nodeID: "id-of-node", secret: secret}.annotations()
	elsewhere := publication{"old", "elsewhere"}
	c := &comparison{listed: publications{elsewhere: true, {"old", "id-of-node"}: true}, before: []storagev1.VolumeAttachment{*s.attachment}, clusterState: clusterWith()}
	found := c.compare().dangling
	if d, ok := found[elsewhere]; len(found) != 1 || !ok || d.volume != nil || d.secret == nil || *d.secret != *secret {
		t.Errorf("dangling: %+v", found)
	}
}

// The handle of an in-tree volume may lack parts that only the node ID has.
func TestInTreeVolumesDangleToo(t *testing.T) {
	o := &Options{Driver: "pd.csi.storage.gke.io", Plugin: migrate.ForDriver("pd.csi.storage.gke.io")}
	const instances, disks = "projects/mine/zones/a/instances/", "projects/mine/zones/a/disks/"
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"},
		}},
	}
	c := newClusterState(o.Plugin)
	c.addVolume(t.Context(), o, volume)
	c.nodeIDByName["node"], c.nodeIDs[instances+"node"] = instances+"node", true
	attached, dangling := publication{disks + "disk", instances + "node"}, publication{disks + "disk", instances + "gone"}
	listed := publications{attached: true, dangling: true, {disks + "boot", instances + "node"}: true}
	a := newState().attachment
	got := (&comparison{listed: listed, after: []storagev1.VolumeAttachment{*a}, clusterState: c}).compare().dangling
	if d, ok := got[dangling]; len(got) != 1 || !ok || d.volume.Name != "pv" || d.possibleOwner != "" {
		t.Errorf("dangling: %+v", got)
	}
}
