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
	in := func(segment map[string]string) func(*state) {
		return func(s *state) {
			s.volume.Spec.NodeAffinity = topology.NodeAffinity([]*csipb.Topology{{Segments: segment}})
		}
	}
	at := func(node string) func(*state) { return in(map[string]string{"host": node}) }
	zone := func(name string) func(*state) { return in(map[string]string{"zone": name}) }
	by := func(identity string) func(*state) {
		return func(s *state) {
			s.volume.Spec.CSI.VolumeAttributes = map[string]string{kube.AttributeIdentity: identity}
		}
	}
	madeAt := func(node string) func(*state) { return by("1700000000000-4321-csitest.holdfast.io-" + node) }
	record := func(node string) func(*state) {
		return func(s *state) { s.volume.Annotations[NodeAnnotation] = node }
	}
	retained := func(s *state) { s.volume.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain }
	bound := func(s *state) { s.volume.Status.Phase, s.volume.Finalizers = corev1.VolumeBound, nil }
	deleting := func(s *state) { s.volume.DeletionTimestamp = &metav1.Time{} }
	attached := func(s *state) { s.attached = true }
	tests := map[string]struct {
		changes []func(*state)
		want    action
	}{
		"a volume of this node is deleted":                                    {[]func(*state){at("n1")}, deleteVolume},
		"whoever has made it":                                                 {[]func(*state){at("n1"), madeAt("n2")}, deleteVolume},
		"a volume of another node is left alone":                              {[]func(*state){at("n2")}, none},
		"whoever has made it there":                                           {[]func(*state){at("n2"), madeAt("n1")}, none},
		"also when its object is being deleted":                               {[]func(*state){at("n2"), deleting}, none},
		"a volume of which nothing is known is looked for":                    {nil, locate},
		"also when its object is being deleted already":                       {[]func(*state){deleting}, locate},
		"but not while it is attached":                                        {[]func(*state){attached}, waitForDetach},
		"a volume of a zone that has more nodes is looked for":                {[]func(*state){zone("a")}, locate},
		"a volume of another zone is left alone":                              {[]func(*state){zone("b")}, none},
		"a volume of the zone that was made here is deleted":                  {[]func(*state){zone("a"), madeAt("n1")}, deleteVolume},
		"a volume of the zone that was made on another node is left to that":  {[]func(*state){zone("a"), madeAt("n2")}, reportOtherNode},
		"a volume of nowhere that was made here is deleted":                   {[]func(*state){madeAt("n1")}, deleteVolume},
		"a volume of nowhere that was made on another node is left to that":   {[]func(*state){madeAt("n2")}, reportOtherNode},
		"a name that begins like this node's is another's":                    {[]func(*state){madeAt("n1-2")}, reportOtherNode},
		"a volume that was made for all nodes is looked for":                  {[]func(*state){by("1700000000000-4321-csitest.holdfast.io")}, locate},
		"a volume that another driver's provisioner has made is looked for":   {[]func(*state){by("1700000000000-4321-other.example.com-n1")}, locate},
		"a volume by who calls itself otherwise is looked for":                {[]func(*state){by("somebody")}, locate},
		"a volume that was found here is deleted":                             {[]func(*state){record("n1")}, deleteVolume},
		"whatever else is said":                                               {[]func(*state){record("n1"), at("n2"), madeAt("n3")}, deleteVolume},
		"a volume that was found on another node is left to that":             {[]func(*state){record("n2")}, reportOtherNode},
		"whatever else is said of it":                                         {[]func(*state){record("n2"), at("n1"), madeAt("n1")}, reportOtherNode},
		"a bound volume of this node is held":                                 {[]func(*state){at("n1"), bound}, addFinalizer},
		"a bound volume of another node is not":                               {[]func(*state){at("n2"), bound}, none},
		"a bound volume that may be here is held":                             {[]func(*state){bound}, addFinalizer},
		"a bound volume that was made on another node is not":                 {[]func(*state){madeAt("n2"), bound}, none},
		"a retained volume of this node is let go of":                         {[]func(*state){at("n1"), retained}, removeFinalizer},
		"a retained volume that may be here is let go of":                     {[]func(*state){retained}, removeFinalizer},
		"a retained volume of another node is left to that":                   {[]func(*state){at("n2"), retained}, none},
		"a retained volume that another node has made is left to that":        {[]func(*state){madeAt("n2"), retained}, none},
		"a retained volume of a node that is gone is let go of when it shall": {[]func(*state){at("n2"), retained, deleting}, removeFinalizer},
		"also one that only its maker could delete":                           {[]func(*state){madeAt("n2"), retained, deleting}, removeFinalizer},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := releasedState()
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

func TestInTreeVolumeHasNoCreatorNode(t *testing.T) {
	s := releasedState()
	s.volume.Annotations, s.volume.Spec.PersistentVolumeSource = map[string]string{kube.AnnMigratedTo: "ebs.csi.aws.com"}, ebs()
	o := &Options{
		Driver: "ebs.csi.aws.com", Provisioner: "ebs.csi.aws.com", Plugin: migrate.ForDriver("ebs.csi.aws.com"),
		Node: "n1", Segment: topology.Segment{"host": "n1"},
	}
	if got := decide(s, o); got != locate {
		t.Errorf("got %d", got)
	}
}
