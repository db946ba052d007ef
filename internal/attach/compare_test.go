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

// clusterWith is a cluster with some volumes and one node.
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
		changes      []func(*state) // of the one VolumeAttachment; nil is none
		meanwhile    bool           // it has changed while the driver was asked
		listed       []publication
		contradicted bool
		dangling     []publication
	}{
		"attached, and the driver says so":                                {[]func(*state){recorded, isAttachedNow}, false, []publication{here}, false, nil},
		"attached, and the driver says not":                               {[]func(*state){recorded, isAttachedNow}, false, nil, true, nil},
		"not attached, and the driver says it is":                         {[]func(*state){recorded}, false, []publication{here}, true, nil},
		"not attached, and the driver says so":                            {[]func(*state){recorded}, false, nil, false, nil},
		"what has changed meanwhile is not judged":                        {[]func(*state){recorded, isAttachedNow}, true, nil, false, nil},
		"without a record the volume and the node are asked":              {[]func(*state){isAttachedNow}, false, nil, true, nil},
		"without a record and a node nothing can be said":                 {[]func(*state){isAttachedNow, func(s *state) { s.attachment.Spec.NodeName = "gone" }}, false, nil, false, nil},
		"a volume of ours that nobody tells of dangles":                   {nil, false, []publication{here}, false, []publication{here}},
		"also on a node that is gone":                                     {nil, false, []publication{{"vol", "gone"}}, false, []publication{{"vol", "gone"}}},
		"but not a disk of a node of ours that no PersistentVolume names": {nil, false, []publication{{"etcd", "id-of-node"}}, false, nil},
		"but not what is another cluster's":                               {nil, false, []publication{{"other", "elsewhere"}}, false, nil},
		"nor what an attachment that is going tells of":                   {[]func(*state){recorded, deleting, isAttachedNow}, false, []publication{here}, false, nil},
		"where it was attached it dangles not, where else it does": {
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
				t.Errorf("contradicted are %v", got.mismatched)
			}
			if len(got.dangling) != len(tt.dangling) {
				t.Errorf("dangling are %v", got.dangling)
			}
			for p := range got.dangling {
				if !slices.Contains(tt.dangling, p) {
					t.Errorf("%v dangles", p)
				}
			}
		})
	}
}

// What may be the publication of a VolumeAttachment is told, and left where it is.
func TestDanglingAttachmentMayHaveAPossibleOwner(t *testing.T) {
	vol, other := publication{"vol", "id-of-node"}, publication{"vol", "gone"}
	node := func(name string) func(*state) { return func(s *state) { s.attachment.Spec.NodeName = name } }
	unknown := func(s *state) { *s.attachment.Spec.Source.PersistentVolumeName = "gone" }
	tests := map[string]struct {
		changes []func(*state) // of a VolumeAttachment
		listed  publication
		doubt   bool
	}{
		"an attachment of upstream's whose volume is gone may tell of all on its node":  {[]func(*state){attachedByUpstream, unknown}, vol, true},
		"also one that is being deleted":                                                {[]func(*state){attachedByUpstream, unknown, deleting}, vol, true},
		"also one that nothing was asked for":                                           {[]func(*state){unknown}, vol, true},
		"but not of what is on other nodes":                                             {[]func(*state){attachedByUpstream, unknown}, other, false},
		"nor if it has its volume on record":                                            {[]func(*state){recorded, unknown, func(s *state) { s.attachment.Annotations[handleAnnotation] = "old" }}, vol, false},
		"an attachment to a node that is gone may tell of its volume on any other such": {[]func(*state){node("gone")}, other, true},
		"but not on a node that is there":                                               {[]func(*state){node("gone")}, vol, false},
		"one of which nothing can be told may tell of all on such nodes":                {[]func(*state){unknown, node("gone")}, other, true},
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
				t.Errorf("found %t, in doubt by %q", found, d.possibleOwner)
			}
		})
	}
}

// A record is enough to know that a volume is this cluster's, and how to detach it.
func TestVolumeNamedOnlyByARecordDangles(t *testing.T) {
	s := newState()
	hasOurFinalizer(&s)
	secret := &corev1.SecretReference{Namespace: "ns", Name: "s"}
	s.attachment.Annotations = record{handle: "old", nodeID: "id-of-node", secret: secret}.annotations()
	elsewhere := publication{"old", "elsewhere"}
	c := &comparison{listed: publications{elsewhere: true, {"old", "id-of-node"}: true}, before: []storagev1.VolumeAttachment{*s.attachment}, clusterState: clusterWith()}
	found := c.compare().dangling
	if d, ok := found[elsewhere]; len(found) != 1 || !ok || d.volume != nil || d.secret == nil || *d.secret != *secret {
		t.Errorf("dangling are %+v", found)
	}
}

// The handle of a volume in the form of a plugin may lack what is in the node's id.
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
		t.Errorf("dangling are %+v", got)
	}
}
