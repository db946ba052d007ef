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

// known is a cluster with some volumes and one node.
func known(volumes ...*corev1.PersistentVolume) *cluster {
	c := newCluster(options.Plugin)
	for _, v := range volumes {
		c.add(context.Background(), options, v)
	}
	c.nodes["node"], c.ids["id-of-node"] = "id-of-node", true
	return c
}

func TestCompare(t *testing.T) {
	here := publication{"vol", "id-of-node"}
	tests := map[string]struct {
		changes      []func(*seen) // of the one VolumeAttachment; nil is none
		meanwhile    bool          // it has changed while the driver was asked
		listed       []publication
		contradicted bool
		dangling     []publication
	}{
		"attached, and the driver says so":                                {[]func(*seen){recorded, attachedNow}, false, []publication{here}, false, nil},
		"attached, and the driver says not":                               {[]func(*seen){recorded, attachedNow}, false, nil, true, nil},
		"not attached, and the driver says it is":                         {[]func(*seen){recorded}, false, []publication{here}, true, nil},
		"not attached, and the driver says so":                            {[]func(*seen){recorded}, false, nil, false, nil},
		"what has changed meanwhile is not judged":                        {[]func(*seen){recorded, attachedNow}, true, nil, false, nil},
		"without a record the volume and the node are asked":              {[]func(*seen){attachedNow}, false, nil, true, nil},
		"without a record and a node nothing can be said":                 {[]func(*seen){attachedNow, func(s *seen) { s.attachment.Spec.NodeName = "gone" }}, false, nil, false, nil},
		"a volume of ours that nobody tells of dangles":                   {nil, false, []publication{here}, false, []publication{here}},
		"also on a node that is gone":                                     {nil, false, []publication{{"vol", "gone"}}, false, []publication{{"vol", "gone"}}},
		"but not a disk of a node of ours that no PersistentVolume names": {nil, false, []publication{{"etcd", "id-of-node"}}, false, nil},
		"but not what is another cluster's":                               {nil, false, []publication{{"other", "elsewhere"}}, false, nil},
		"nor what an attachment that is going tells of":                   {[]func(*seen){recorded, deleting, attachedNow}, false, []publication{here}, false, nil},
		"where it was attached it dangles not, where else it does": {
			[]func(*seen){recorded, attachedNow}, false, []publication{here, {"vol", "gone"}}, false, []publication{{"vol", "gone"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, change := range tt.changes {
				change(&s)
			}
			c := &census{listed: publications{}, cluster: known(fresh().volume)}
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
			if (len(got.contradicted) == 1) != tt.contradicted {
				t.Errorf("contradicted are %v", got.contradicted)
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
func TestWhatMayNotDangleIsInDoubt(t *testing.T) {
	vol, other := publication{"vol", "id-of-node"}, publication{"vol", "gone"}
	node := func(name string) func(*seen) { return func(s *seen) { s.attachment.Spec.NodeName = name } }
	unknown := func(s *seen) { *s.attachment.Spec.Source.PersistentVolumeName = "gone" }
	tests := map[string]struct {
		changes []func(*seen) // of a VolumeAttachment
		listed  publication
		doubt   bool
	}{
		"an attachment of upstream's whose volume is gone may tell of all on its node":  {[]func(*seen){byUpstream, unknown}, vol, true},
		"also one that is being deleted":                                                {[]func(*seen){byUpstream, unknown, deleting}, vol, true},
		"also one that nothing was asked for":                                           {[]func(*seen){unknown}, vol, true},
		"but not of what is on other nodes":                                             {[]func(*seen){byUpstream, unknown}, other, false},
		"nor if it has its volume on record":                                            {[]func(*seen){recorded, unknown, func(s *seen) { s.attachment.Annotations[handleAnnotation] = "old" }}, vol, false},
		"an attachment to a node that is gone may tell of its volume on any other such": {[]func(*seen){node("gone")}, other, true},
		"but not on a node that is there":                                               {[]func(*seen){node("gone")}, vol, false},
		"one of which nothing can be told may tell of all on such nodes":                {[]func(*seen){unknown, node("gone")}, other, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := fresh()
			for _, change := range tt.changes {
				change(&s)
			}
			c := &census{listed: publications{tt.listed: true}, after: []storagev1.VolumeAttachment{*s.attachment}, cluster: known(fresh().volume)}
			d, found := c.compare().dangling[tt.listed]
			if !found || (d.doubt != "") != tt.doubt {
				t.Errorf("found %t, in doubt by %q", found, d.doubt)
			}
		})
	}
}

// A record is enough to know that a volume is this cluster's, and how to detach it.
func TestWhatOnlyARecordNamesDangles(t *testing.T) {
	s := fresh()
	held(&s)
	secret := &corev1.SecretReference{Namespace: "ns", Name: "s"}
	s.attachment.Annotations = record{handle: "old", node: "id-of-node", secret: secret}.annotations()
	elsewhere := publication{"old", "elsewhere"}
	c := &census{listed: publications{elsewhere: true, {"old", "id-of-node"}: true}, before: []storagev1.VolumeAttachment{*s.attachment}, cluster: known()}
	found := c.compare().dangling
	if d, ok := found[elsewhere]; len(found) != 1 || !ok || d.volume != nil || d.secret == nil || *d.secret != *secret {
		t.Errorf("dangling are %+v", found)
	}
}

// The handle of a volume in the form of a plugin may lack what is in the node's id.
func TestVolumesInTheFormOfPluginsDangleToo(t *testing.T) {
	o := &Options{Driver: "pd.csi.storage.gke.io", Plugin: migrate.Of("pd.csi.storage.gke.io")}
	const instances, disks = "projects/mine/zones/a/instances/", "projects/mine/zones/a/disks/"
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv"},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeSource: corev1.PersistentVolumeSource{
			GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"},
		}},
	}
	c := newCluster(o.Plugin)
	c.add(t.Context(), o, volume)
	c.nodes["node"], c.ids[instances+"node"] = instances+"node", true
	attached, dangling := publication{disks + "disk", instances + "node"}, publication{disks + "disk", instances + "gone"}
	listed := publications{attached: true, dangling: true, {disks + "boot", instances + "node"}: true}
	a := fresh().attachment
	got := (&census{listed: listed, after: []storagev1.VolumeAttachment{*a}, cluster: c}).compare().dangling
	if d, ok := got[dangling]; len(got) != 1 || !ok || d.volume.Name != "pv" || d.doubt != "" {
		t.Errorf("dangling are %+v", got)
	}
}
