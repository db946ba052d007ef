package reclaim

import (
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-io/holdfast/internal/kube"
	"github.com/holdfast-io/holdfast/internal/migrate"
	"github.com/holdfast-io/holdfast/internal/topology"
)

// Where each node has a provisioner of its own, only the one beside a volume
// may ask its driver: the others' would say that there is no such volume.
func TestDecideOnANode(t *testing.T) {
	in := func(segment map[string]string) func(*seen) {
		return func(s *seen) {
			s.volume.Spec.NodeAffinity = topology.NodeAffinity([]*csipb.Topology{{Segments: segment}})
		}
	}
	at := func(node string) func(*seen) { return in(map[string]string{"host": node}) }
	zone := func(name string) func(*seen) { return in(map[string]string{"zone": name}) }
	by := func(identity string) func(*seen) {
		return func(s *seen) {
			s.volume.Spec.CSI.VolumeAttributes = map[string]string{kube.AttributeIdentity: identity}
		}
	}
	madeAt := func(node string) func(*seen) { return by("1700000000000-4321-csitest.holdfast.io-" + node) }
	record := func(node string) func(*seen) {
		return func(s *seen) { s.volume.Annotations[NodeAnnotation] = node }
	}
	retained := func(s *seen) { s.volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain }
	bound := func(s *seen) { s.volume.Status.Phase, s.volume.Finalizers = corev1.VolumeBound, nil }
	deleting := func(s *seen) { s.volume.DeletionTimestamp = &metav1.Time{} }
	attached := func(s *seen) { s.attached = true }
	tests := map[string]struct {
		changes []func(*seen)
		want    kind
	}{
		"a volume of this node is deleted":                                    {[]func(*seen){at("n1")}, destroy},
		"whoever has made it":                                                 {[]func(*seen){at("n1"), madeAt("n2")}, destroy},
		"a volume of another node is left alone":                              {[]func(*seen){at("n2")}, rest},
		"whoever has made it there":                                           {[]func(*seen){at("n2"), madeAt("n1")}, rest},
		"also when its object is being deleted":                               {[]func(*seen){at("n2"), deleting}, rest},
		"a volume of which nothing is known is looked for":                    {nil, locate},
		"also when its object is being deleted already":                       {[]func(*seen){deleting}, locate},
		"but not while it is attached":                                        {[]func(*seen){attached}, await},
		"a volume of a zone that has more nodes is looked for":                {[]func(*seen){zone("a")}, locate},
		"a volume of another zone is left alone":                              {[]func(*seen){zone("b")}, rest},
		"a volume of the zone that was made here is deleted":                  {[]func(*seen){zone("a"), madeAt("n1")}, destroy},
		"a volume of the zone that was made on another node is left to that":  {[]func(*seen){zone("a"), madeAt("n2")}, leave},
		"a volume of nowhere that was made here is deleted":                   {[]func(*seen){madeAt("n1")}, destroy},
		"a volume of nowhere that was made on another node is left to that":   {[]func(*seen){madeAt("n2")}, leave},
		"a name that begins like this node's is another's":                    {[]func(*seen){madeAt("n1-2")}, leave},
		"a volume that was made for all nodes is looked for":                  {[]func(*seen){by("1700000000000-4321-csitest.holdfast.io")}, locate},
		"a volume that another driver's provisioner has made is looked for":   {[]func(*seen){by("1700000000000-4321-other.example.com-n1")}, locate},
		"a volume by who calls itself otherwise is looked for":                {[]func(*seen){by("somebody")}, locate},
		"a volume that was found here is deleted":                             {[]func(*seen){record("n1")}, destroy},
		"whatever else is said":                                               {[]func(*seen){record("n1"), at("n2"), madeAt("n3")}, destroy},
		"a volume that was found on another node is left to that":             {[]func(*seen){record("n2")}, leave},
		"whatever else is said of it":                                         {[]func(*seen){record("n2"), at("n1"), madeAt("n1")}, leave},
		"a bound volume of this node is held":                                 {[]func(*seen){at("n1"), bound}, hold},
		"a bound volume of another node is not":                               {[]func(*seen){at("n2"), bound}, rest},
		"a bound volume that may be here is held":                             {[]func(*seen){bound}, hold},
		"a bound volume that was made on another node is not":                 {[]func(*seen){madeAt("n2"), bound}, rest},
		"a retained volume of this node is let go of":                         {[]func(*seen){at("n1"), retained}, release},
		"a retained volume that may be here is let go of":                     {[]func(*seen){retained}, release},
		"a retained volume of another node is left to that":                   {[]func(*seen){at("n2"), retained}, rest},
		"a retained volume that another node has made is left to that":        {[]func(*seen){madeAt("n2"), retained}, rest},
		"a retained volume of a node that is gone is let go of when it shall": {[]func(*seen){at("n2"), retained, deleting}, release},
		"also one that only its maker could delete":                           {[]func(*seen){madeAt("n2"), retained, deleting}, release},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := released()
			for _, change := range tt.changes {
				change(&s)
			}
			o := &Options{
				Driver: "csitest.holdfast.io", Provisioner: "storage.example.com/csi",
				Node: "n1", Segment: topology.Segment{"zone": "a", "host": "n1"},
			}
			if got := decide(s, o); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestAVolumeOfABuiltInPluginHasNoMaker(t *testing.T) {
	s := released()
	s.volume.Annotations, s.volume.Spec.PersistentVolumeSource = map[string]string{kube.AnnMigratedTo: "ebs.csi.aws.com"}, ebs()
	o := &Options{
		Driver: "ebs.csi.aws.com", Provisioner: "ebs.csi.aws.com", Plugin: migrate.Of("ebs.csi.aws.com"),
		Node: "n1", Segment: topology.Segment{"host": "n1"},
	}
	if got := decide(s, o); got != locate {
		t.Errorf("got %d", got)
	}
}
