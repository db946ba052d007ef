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

// Where each node has a provisioner of its own, only the one on the volume's
// node may call DeleteVolume: the drivers of other nodes would return success
// without deleting anything.
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
		"a volume of this node is deleted":                                                                 {[]func(*state){at("n1")}, deleteVolume},
		"a volume of this node that another node created is deleted":                                       {[]func(*state){at("n1"), madeAt("n2")}, deleteVolume},
		"a volume of another node is ignored":                                                              {[]func(*state){at("n2")}, none},
		"a volume of another node that this node created is ignored":                                       {[]func(*state){at("n2"), madeAt("n1")}, none},
		"a volume of another node is ignored when its object is being deleted":                             {[]func(*state){at("n2"), deleting}, none},
		"a volume with an unknown node is located":                                                         {nil, locate},
		"a volume with an unknown node is located when its object is being deleted":                        {[]func(*state){deleting}, locate},
		"an attached volume with an unknown node waits for its detachment":                                 {[]func(*state){attached}, waitForDetach},
		"a volume of a zone with several nodes is located":                                                 {[]func(*state){zone("a")}, locate},
		"a volume of another zone is ignored":                                                              {[]func(*state){zone("b")}, none},
		"a volume of the zone that this node created is deleted":                                           {[]func(*state){zone("a"), madeAt("n1")}, deleteVolume},
		"a volume of the zone that another node created is left to that node":                              {[]func(*state){zone("a"), madeAt("n2")}, reportOtherNode},
		"a volume without affinity that was created here is deleted":                                       {[]func(*state){madeAt("n1")}, deleteVolume},
		"a volume without affinity that another node created is left to that node":                         {[]func(*state){madeAt("n2")}, reportOtherNode},
		"a node name that only begins like this node's is another node":                                    {[]func(*state){madeAt("n1-2")}, reportOtherNode},
		"a volume that a provisioner for all nodes created is located":                                     {[]func(*state){by("1700000000000-4321-csitest.holdfast.io")}, locate},
		"a volume that another driver's provisioner created is located":                                    {[]func(*state){by("1700000000000-4321-other.example.com-n1")}, locate},
		"a volume with an unknown identity is located":                                                     {[]func(*state){by("somebody")}, locate},
		"a volume that is annotated with this node is deleted":                                             {[]func(*state){record("n1")}, deleteVolume},
		"the annotation of this node has precedence":                                                       {[]func(*state){record("n1"), at("n2"), madeAt("n3")}, deleteVolume},
		"a volume that is annotated with another node is left to that node":                                {[]func(*state){record("n2")}, reportOtherNode},
		"the annotation of another node has precedence":                                                    {[]func(*state){record("n2"), at("n1"), madeAt("n1")}, reportOtherNode},
		"a bound volume of this node gets our finalizer":                                                   {[]func(*state){at("n1"), bound}, addFinalizer},
		"a bound volume of another node does not get our finalizer":                                        {[]func(*state){at("n2"), bound}, none},
		"a bound volume with an unknown node gets our finalizer":                                           {[]func(*state){bound}, addFinalizer},
		"a bound volume that another node created does not get our finalizer":                              {[]func(*state){madeAt("n2"), bound}, none},
		"a retained volume of this node loses our finalizer":                                               {[]func(*state){at("n1"), retained}, removeFinalizer},
		"a retained volume with an unknown node loses our finalizer":                                       {[]func(*state){retained}, removeFinalizer},
		"a retained volume of another node is ignored":                                                     {[]func(*state){at("n2"), retained}, none},
		"a retained volume that another node created is ignored":                                           {[]func(*state){madeAt("n2"), retained}, none},
		"a retained volume of another node loses our finalizer when its object is being deleted":           {[]func(*state){at("n2"), retained, deleting}, removeFinalizer},
		"a retained volume that another node created loses our finalizer when its object is being deleted": {[]func(*state){madeAt("n2"), retained, deleting}, removeFinalizer},
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
